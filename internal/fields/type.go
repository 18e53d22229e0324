// Package fields holds messages to what their .proto says of their fields, by
// the option (tenantmesh.v1.field): which of them name the tenant, and which
// are classified.
package fields

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// Type is what there is to check of the messages of a type. A nil Type checks
// nothing. It knows the fields that its descriptor knows: what arrives in
// fields that are unknown to it is not looked at.
type Type struct {
	fields     []field
	any        bool // google.protobuf.Any: its content has a Type of its own
	extendable bool // there may be extensions, which are looked at as they come
}

// field is a field with a rule, or with something to check below it.
type field struct {
	desc     protoreflect.FieldDescriptor
	tenant   bool
	resource []resource
	keys     bool // they are about a map's keys
	empty    pb.Empty
	level    uint32
	clear    bool
	below    *Type // of its messages, or of those that are a map's values
}

func (f *field) names() bool { return f.tenant || len(f.resource) > 0 }

// TenantFields reports whether some field may name a tenant.
func (t *Type) TenantFields() bool {
	return t.some(map[*Type]bool{}, func(f *field) bool { return f.names() })
}

func (t *Type) some(seen map[*Type]bool, ok func(*field) bool) bool {
	if t == nil || seen[t] {
		return false
	}
	seen[t] = true
	for i := range t.fields {
		if ok(&t.fields[i]) || t.fields[i].below.some(seen, ok) {
			return true
		}
	}
	return false
}

// compiled holds the Types of all descriptors asked for, or why there is none.
var compiled sync.Map // protoreflect.MessageDescriptor → *outcome

type outcome struct {
	t   *Type
	err error
}

// Of returns what there is to check of messages of a type, nil if nothing. It
// fails where an option contradicts itself or its field.
func Of(md protoreflect.MessageDescriptor) (*Type, error) {
	if o, ok := compiled.Load(md); ok {
		return o.(*outcome).t, o.(*outcome).err //nolint:errcheck // nothing else is stored
	}
	c := compiler{}
	t := c.compile(md)
	c.prune()
	o := &outcome{t, errors.Join(c.errs...)}
	if o.err != nil || !t.needed() {
		o.t = nil
	}
	compiled.Store(md, o)
	return o.t, o.err
}

// compiler compiles a type and all that it reaches, which may be itself.
type compiler struct {
	types map[protoreflect.FullName]*Type
	errs  []error
}

func (c *compiler) compile(md protoreflect.MessageDescriptor) *Type {
	if t := c.types[md.FullName()]; t != nil {
		return t
	}
	if c.types == nil {
		c.types = map[protoreflect.FullName]*Type{}
	}
	t := &Type{any: md.FullName() == "google.protobuf.Any", extendable: md.ExtensionRanges().Len() > 0}
	c.types[md.FullName()] = t
	for i := range md.Fields().Len() {
		t.fields = append(t.fields, c.field(md.Fields().Get(i)))
	}
	return t
}

func (c *compiler) field(fd protoreflect.FieldDescriptor) field {
	f := field{desc: fd}
	rule, _ := proto.GetExtension(fd.Options(), pb.E_Field).(*pb.FieldRule)
	if rule != nil {
		if err := f.read(rule); err != nil {
			c.errs = append(c.errs, fmt.Errorf("%s:%s: (tenantmesh.v1.field): %w", fd.ParentFile().Path(), fd.FullName(), err))
		}
	}
	value := fd
	if fd.IsMap() {
		value = fd.MapValue()
	}
	if md := value.Message(); md != nil {
		f.below = c.compile(md)
	}
	return f
}

// read takes the rule of a field.
func (f *field) read(rule *pb.FieldRule) error {
	f.tenant, f.keys, f.empty, f.level = rule.Tenant, rule.MapKeys, rule.Empty, rule.Classification
	f.clear = rule.Above == pb.Above_ABOVE_CLEAR
	for _, s := range rule.Resource {
		r, err := parseResource(s)
		if err != nil {
			return err
		}
		f.resource = append(f.resource, r)
	}
	named := f.desc
	switch {
	case f.desc.IsMap() && f.keys:
		named = f.desc.MapKey()
	case f.desc.IsMap():
		named = f.desc.MapValue()
	case f.keys:
		return errors.New("map_keys is for maps")
	}
	switch {
	case f.tenant && len(f.resource) > 0:
		return errors.New("tenant and resource exclude each other")
	case f.names() && named.Kind() != protoreflect.StringKind:
		return fmt.Errorf("a tenant is named by a string, not by %s", named.Kind())
	case !f.names() && (f.keys || f.empty != 0):
		return errors.New("map_keys and empty go with tenant or resource")
	case f.empty == pb.Empty_EMPTY_FILL && (!f.tenant || f.desc.Cardinality() == protoreflect.Repeated || f.desc.ContainingOneof() != nil && !f.desc.HasOptionalKeyword()):
		return errors.New("EMPTY_FILL is for a single field with tenant, outside a oneof")
	case f.clear && f.level == 0:
		return errors.New("above goes with classification")
	case pb.Empty_name[int32(f.empty)] == "", pb.Above_name[int32(rule.Above)] == "":
		return errors.New("a value that is unknown")
	}
	return nil
}

func (t *Type) needed() bool { return t.any || t.extendable || len(t.fields) > 0 }

// prune leaves only the fields that have a rule or something to check below.
func (c *compiler) prune() {
	needed := map[*Type]bool{}
	for again := true; again; {
		again = false
		for _, t := range c.types {
			if needed[t] {
				continue
			}
			needed[t] = t.any || t.extendable
			for i := range t.fields {
				f := &t.fields[i]
				needed[t] = needed[t] || f.names() || f.level > 0 || needed[f.below]
			}
			again = again || needed[t]
		}
	}
	for _, t := range c.types {
		var kept []field
		for _, f := range t.fields {
			if !needed[f.below] {
				f.below = nil
			}
			if f.names() || f.level > 0 || f.below != nil {
				kept = append(kept, f)
			}
		}
		t.fields = kept
	}
}

// resource is a pattern of resource names (AIP-122): collections and {ids} in
// turn, of which one is {tenant}.
type resource struct {
	segments []string // a literal, "{tenant}", or "{}" for any other ID
	rest     bool     // the last is {name=**}: one or more segments follow
}

const (
	tenantID = "{tenant}"
	otherID  = "{}"
)

func parseResource(s string) (r resource, err error) {
	tenants := 0
	for part := range strings.SplitSeq(s, "/") {
		inner, variable := strings.CutPrefix(part, "{")
		inner, closed := strings.CutSuffix(inner, "}")
		name, rest := strings.CutSuffix(inner, "=**")
		switch {
		case r.rest:
			return r, fmt.Errorf("resource %q: {name=**} stands only at the end", s)
		case part == tenantID:
			tenants++
		case variable && closed && isID(name):
			part, r.rest = otherID, rest
		case !isID(part):
			return r, fmt.Errorf("resource %q: collections and {ids} with slashes between, such as tenants/{tenant}/orders/{order}", s)
		}
		if !r.rest {
			r.segments = append(r.segments, part)
		}
	}
	if tenants != 1 {
		return r, fmt.Errorf("resource %q: {tenant} stands once", s)
	}
	return r, nil
}

func isID(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// matches reports whether name is of the pattern and names the tenant.
func (r *resource) matches(name, tenant string) bool {
	more := true
	for _, want := range r.segments {
		if !more {
			return false
		}
		var part string
		part, name, more = strings.Cut(name, "/")
		switch want {
		case tenantID:
			want = tenant
		case otherID:
			want = part
		}
		if part != want || part == "" {
			return false
		}
	}
	return r.rest == more && (!more || name != "")
}
