package fields

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Point is where a message is.
type Point uint8

// The points that a message passes. At those where it is received it is ours,
// and may be changed in place.
const (
	ClientSends Point = iota
	ServerReceives
	ServerSends
	ClientReceives
)

// Limits are what the messages of a call are held to.
type Limits struct {
	// Tenant is the call's.
	Tenant string
	// Classification is that of the call's claims.
	Classification uint32
}

// Fault is a message that may not pass.
type Fault struct {
	// Path names the field, such as "orders[3].name".
	Path string
	// Err has the reason: [tenant.TenantMismatch],
	// [tenant.ClassificationNotAllowed] or [tenant.MessageUncheckable].
	Err *tenant.Error
}

// Error returns the reason and the field.
func (f *Fault) Error() string { return f.Path + ": " + f.Err.Error() }

// Unwrap returns the error with the reason.
func (f *Fault) Unwrap() error { return f.Err }

func fault(r tenant.Reason, format string, args ...any) *Fault {
	return &Fault{Err: tenant.Deny(r, format, args...)}
}

// in says that f is at or below a field.
func (f *Fault) in(name string) *Fault {
	switch {
	case f.Path == "":
		f.Path = name
	case f.Path[0] == '[':
		f.Path = name + f.Path
	default:
		f.Path = name + "." + f.Path
	}
	return f
}

// maxAny is how deep Any may stand in Any.
const maxAny = 4

// Check checks a message of the type at a point and returns what passes: the
// message itself, or, where it is sent and fields of it must be cleared, a copy
// without them. Its error is a [*Fault].
func (t *Type) Check(m proto.Message, at Point, limits Limits) (proto.Message, error) {
	if t == nil {
		return m, nil
	}
	w := walker{limits: limits, fill: at == ServerReceives, change: at == ServerReceives || at == ClientReceives}
	if f := t.walk(&w, m.ProtoReflect()); f != nil {
		return nil, f
	}
	if !w.change && w.due {
		m = proto.Clone(m)
		w.change = true
		if f := t.walk(&w, m.ProtoReflect()); f != nil {
			return nil, f
		}
	}
	return m, nil
}

// walker is one walk through a message.
type walker struct {
	limits  Limits
	fill    bool // empty tenants are filled in
	change  bool // fields may be changed; otherwise due says that some must be
	due     bool
	changed bool
	anys    int
}

func (t *Type) walk(w *walker, m protoreflect.Message) *Fault {
	if t.any {
		return w.any(m)
	}
	for i := range t.fields {
		if f := t.fields[i].walk(w, m); f != nil {
			return f.in(string(t.fields[i].desc.Name()))
		}
	}
	if t.extendable {
		return w.extensions(m)
	}
	return nil
}

func (f *field) walk(w *walker, m protoreflect.Message) *Fault {
	fd := f.desc
	if f.level > w.limits.Classification && m.Has(fd) {
		if !f.clear {
			return fault(tenant.ClassificationNotAllowed, "the field is classified %d, the claims reach to %d", f.level, w.limits.Classification)
		}
		w.due = true
		if w.change {
			m.Clear(fd)
			w.changed = true
		}
		return nil
	}
	switch {
	case fd.IsList():
		return f.walkList(w, m.Get(fd).List())
	case fd.IsMap():
		return f.walkMap(w, m.Get(fd).Map())
	case f.names():
		return f.walkName(w, m)
	case f.below != nil && m.Has(fd):
		return f.below.walk(w, m.Get(fd).Message())
	}
	return nil
}

// walkName checks a single field that names the tenant.
func (f *field) walkName(w *walker, m protoreflect.Message) *Fault {
	if o := f.desc.ContainingOneof(); o != nil && !o.IsSynthetic() && !m.Has(f.desc) {
		return nil // another member is set
	}
	name := m.Get(f.desc).String()
	if name == "" && f.empty == pb.Empty_EMPTY_FILL {
		if w.fill {
			m.Set(f.desc, protoreflect.ValueOfString(w.limits.Tenant))
			w.changed = true
		}
		return nil
	}
	return f.checkName(w, name)
}

func (f *field) checkName(w *walker, name string) *Fault {
	switch {
	case name == "" && f.empty == pb.Empty_EMPTY_ALLOW, f.tenant && name == w.limits.Tenant:
		return nil
	case name == "":
		return fault(tenant.TenantMismatch, "the field names no tenant")
	}
	for i := range f.resource {
		if f.resource[i].matches(name, w.limits.Tenant) {
			return nil
		}
	}
	return fault(tenant.TenantMismatch, "the field names another tenant, or none")
}

func (f *field) walkList(w *walker, l protoreflect.List) *Fault {
	for i := range l.Len() {
		var bad *Fault
		if f.names() {
			bad = f.checkName(w, l.Get(i).String())
		} else if f.below != nil {
			bad = f.below.walk(w, l.Get(i).Message())
		}
		if bad != nil {
			return bad.in("[" + strconv.Itoa(i) + "]")
		}
	}
	return nil
}

func (f *field) walkMap(w *walker, m protoreflect.Map) (bad *Fault) {
	inner := *w // what a closure takes goes to the heap; w shall not
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if f.names() {
			name := k.String()
			if !f.keys {
				name = v.String()
			}
			bad = f.checkName(&inner, name)
		}
		if bad == nil && f.below != nil {
			bad = f.below.walk(&inner, v.Message())
		}
		if bad != nil {
			bad = bad.in(fmt.Sprintf("[%q]", k.String()))
		}
		return bad == nil
	})
	*w = inner
	return bad
}

// extensions checks the extensions that are set in a message.
func (w *walker) extensions(m protoreflect.Message) (bad *Fault) {
	inner := *w
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !fd.IsExtension() {
			return true
		}
		c := compiler{}
		f := c.field(fd)
		c.prune()
		switch {
		case len(c.errs) > 0:
			bad = fault(tenant.MessageUncheckable, "%v", c.errs[0])
		case f.below != nil && !f.below.needed():
			f.below = nil
			fallthrough
		default:
			bad = f.walk(&inner, m)
		}
		if bad != nil {
			bad = bad.in("[" + string(fd.FullName()) + "]")
		}
		return bad == nil
	})
	*w = inner
	return bad
}

// any checks what a google.protobuf.Any holds. What cannot be read does not pass.
func (w *walker) any(m protoreflect.Message) *Fault {
	fields := m.Descriptor().Fields()
	url, value := fields.ByNumber(1), fields.ByNumber(2)
	name := m.Get(url).String()
	if name == "" && len(m.Get(value).Bytes()) == 0 {
		return nil
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(name)
	if err != nil {
		return fault(tenant.MessageUncheckable, "an Any of a type that is not linked in")
	}
	t, err := Of(mt.Descriptor())
	switch {
	case err != nil:
		return fault(tenant.MessageUncheckable, "%w", err)
	case t == nil:
		return nil
	case w.anys == maxAny:
		return fault(tenant.MessageUncheckable, "an Any in over %d others", maxAny)
	}
	content := mt.New()
	if err := proto.Unmarshal(m.Get(value).Bytes(), content.Interface()); err != nil {
		return fault(tenant.MessageUncheckable, "an Any that is not of its type")
	}
	inner := *w
	inner.anys++
	inner.changed = false
	if f := t.walk(&inner, content); f != nil {
		return f.in("(" + string(mt.Descriptor().FullName()) + ")")
	}
	w.due = w.due || inner.due
	if !inner.changed {
		return nil
	}
	w.changed = true
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(content.Interface())
	if err != nil {
		return fault(tenant.MessageUncheckable, "%w", err)
	}
	m.Set(value, protoreflect.ValueOfBytes(b))
	return nil
}
