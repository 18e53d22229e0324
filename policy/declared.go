package policy

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// Declared is what a method's .proto says of it, by the option
// (tenantmesh.v1.method). The policy's rules and it apply together. The zero
// Declared asks for nothing.
type Declared struct {
	at             string // file.proto:line, if it says something
	exempt         bool
	scopes         []need
	classification level
	absent         pb.Absent
}

var undeclared Declared

// Declare reads the option of a method. It fails where the option contradicts
// itself, has a scope that is no scope-token, or says what this version does not know.
func Declare(m protoreflect.MethodDescriptor) (*Declared, error) {
	rule, _ := proto.GetExtension(m.Options(), pb.E_Method).(*pb.MethodRule)
	if rule == nil {
		return &undeclared, nil
	}
	d := &Declared{at: placeOf(m), exempt: rule.Exempt, absent: rule.Absent}
	fail := func(format string, args ...any) (*Declared, error) {
		return nil, fmt.Errorf("%s: (tenantmesh.v1.method): %s", d.at, fmt.Sprintf(format, args...))
	}
	switch {
	case len(rule.ProtoReflect().GetUnknown()) > 0:
		return fail("it says what this program does not know: a newer version is needed")
	case rule.Exempt && (len(rule.Scopes) > 0 || rule.Classification > 0 || rule.Absent != 0):
		return fail("an exempt method asks for nothing")
	case pb.Absent_name[int32(rule.Absent)] == "":
		return fail("absent: %d is unknown", rule.Absent)
	}
	for _, s := range rule.Scopes {
		if !validScope(s) {
			return fail("%q is no scope: exact, no *, no blanks, no empty segment between dots", s)
		}
		d.scopes = append(d.scopes, need{s, d.at})
	}
	d.classification = level{rule.Classification, d.at}
	return d, nil
}

// placeOf returns the place of a descriptor as file:line, or file:name where
// the file was compiled without its lines.
func placeOf(d protoreflect.Descriptor) string {
	file := d.ParentFile()
	if at := file.SourceLocations().ByDescriptor(d); at.Path != nil {
		return fmt.Sprintf("%s:%d", file.Path(), at.StartLine+1)
	}
	return fmt.Sprintf("%s:%s", file.Path(), d.FullName())
}

// Exempt says whether the method needs no tenant, if the policy agrees.
func (d *Declared) Exempt() bool { return d.exempt }

// HidesExistence says whether the method answers NOT_FOUND for what is not the
// caller's, and not PERMISSION_DENIED (AIP-211).
func (d *Declared) HidesExistence() bool { return d.absent != pb.Absent_ABSENT_PERMISSION_DENIED }
