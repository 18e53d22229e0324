package interceptors

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tenantmesh/tenantmesh/internal/fields"
	"github.com/tenantmesh/tenantmesh/policy"
)

// contract is what a method's .proto says of it and of its messages.
type contract struct {
	declared *policy.Declared
	in, out  *fields.Type // nil: nothing to check
	err      error        // an option that contradicts itself; it denies
}

// noContract is that of a method whose .proto is not linked in.
var noContract contract

// contract returns that of a method. It is compiled once.
func (g *Guard) contract(method string) *contract {
	if c, ok := g.contracts.Load(method); ok {
		return c.(*contract) //nolint:errcheck // nothing else is stored
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	md, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		return &noContract // not kept: callers could fill the memory with names
	}
	c := newContract(md)
	g.contracts.Store(method, c)
	return c
}

func newContract(md protoreflect.MethodDescriptor) *contract {
	c := &contract{}
	var errs [4]error
	c.declared, errs[0] = policy.Declare(md)
	c.in, errs[1] = fields.Of(md.Input())
	c.out, errs[2] = fields.Of(md.Output())
	if c.declared != nil && c.declared.Exempt() && (c.in.TenantFields() || c.out.TenantFields()) {
		errs[3] = fmt.Errorf("%s is exempt from the tenant by (tenantmesh.v1.method), and its messages name tenants", md.FullName())
	}
	c.err = errors.Join(errs[:]...)
	return c
}

// absent is how a record of another tenant looks to the caller: like one that
// does not exist.
func (c *contract) absent() error {
	if c.declared != nil && !c.declared.HidesExistence() {
		return status.Error(codes.PermissionDenied, "permission denied")
	}
	return status.Error(codes.NotFound, "not found")
}
