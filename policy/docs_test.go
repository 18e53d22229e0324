package policy

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// section is a top-level key of a document, with what belongs to it.
var section = regexp.MustCompile(`(?m)^([a-z_]+):.*\n(?:(?:[ #].*)?\n)*`)

// guide reads docs/policy.md.
type guide struct {
	whole    map[string]string // the sections of the first example
	order    []string
	document string
	list     string // the tenants_file
	policy   *Policy
	err      error
	last     *Decision
	asked    bool // the example was asked something, or is refused
}

// TestGuide loads every example of docs/policy.md and asks it what stands in
// the table below it.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	shop, err := os.ReadFile("../internal/testproto/shop/v1/shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	g := &guide{asked: true}
	examples, rows, fence, block := 0, 0, "", ""
	for n, line := range strings.Split(string(text), "\n") {
		at := fmt.Sprintf("docs/policy.md:%d", n+1)
		switch info, isFence := strings.CutPrefix(line, "```"); {
		case isFence && fence == "":
			fence, block = info, ""
		case isFence:
			switch fence {
			case "yaml":
				examples++
				if !g.asked {
					t.Errorf("%s: nothing was said about the example before", at)
				}
				g.example(block)
			case "text tenants.list":
				g.list = block
				g.load()
			case "text error":
				g.asked = true
				if g.err == nil || g.err.Error()+"\n" != block {
					t.Errorf("%s: got\n%v", at, g.err)
				}
			case "text explanation":
				if got, _, _ := strings.Cut(g.last.Explain().String(), "policy     sha256"); got != block {
					t.Errorf("%s: got\n%s", at, got)
				}
			case "proto":
				if !strings.Contains(string(shop), block) {
					t.Errorf("%s: this is not in shop.proto", at)
				}
			default:
				t.Errorf("%s: nothing reads a block of %q", at, fence)
			}
			fence = ""
		case fence != "":
			block += line + "\n"
		case strings.HasPrefix(line, "| `/"), strings.HasPrefix(line, "| `spiffe:"):
			rows++
			g.asked = true
			if why := g.ask(t, line); why != "" {
				t.Errorf("%s: %s\n%s", at, line, why)
			}
		}
	}
	if examples < 12 || rows < 50 || !g.asked {
		t.Errorf("%d examples and %d rows", examples, rows)
	}
	for name := range variables {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("the variable %s is not in the guide", name)
		}
	}
}

// example takes a document, with what it leaves out from the first one.
func (g *guide) example(block string) {
	own := map[string]bool{}
	for _, m := range section.FindAllStringSubmatch(block, -1) {
		own[m[1]] = true
		if g.document == "" {
			g.order = append(g.order, m[1])
		}
	}
	if g.document == "" {
		g.whole = map[string]string{}
		for _, m := range section.FindAllStringSubmatch(block, -1) {
			g.whole[m[1]] = m[0]
		}
	}
	g.document = block
	for _, name := range g.order {
		if !own[name] {
			g.document += g.whole[name]
		}
	}
	g.list = ""
	g.load()
	g.asked = false
}

func (g *guide) load() {
	g.policy, g.err = Load(fstest.MapFS{"tenantmesh.yaml": {Data: []byte(g.document)}, "tenants.list": {Data: []byte(g.list)}}, "tenantmesh.yaml")
}

var row = regexp.MustCompile("^\\| (.+) \\| (calls|originates|publishes to|consumes from) `([^`]+)`(?: for `([^`]+)`)?(?: with `([^`]+)`)? \\| (allowed|`[A-Z_]+`) \\|$")

// ask asks what a row says, and returns what is wrong with the answer.
func (g *guide) ask(t *testing.T, line string) string {
	t.Helper()
	m := row.FindStringSubmatch(line)
	if m == nil {
		return "this is no question"
	}
	if g.err != nil {
		return g.err.Error()
	}
	var path []hop.Step
	for who := range strings.SplitSeq(m[1], " → ") {
		who = strings.Trim(who, "`")
		step := hop.Step{Signer: ids(strings.TrimPrefix(who, "/"))[0], Kind: hop.Call, Target: "/orders.v1.Orders/List"}
		path = append(path, step)
	}
	self := path[len(path)-1].Signer
	var d Decision
	switch does, what, about := m[2], m[3], m[4]; does {
	case "publishes to":
		d = g.policy.MayPublish(self, what)
	case "consumes from":
		d = g.policy.MayConsume(self, what)
	case "originates":
		c, from := g.claims(t, about, what)
		d = g.policy.MayOriginate(self, c, from)
	case "calls":
		declared := declaredOf(t, what)
		if d = g.policy.Admit(what, declared, self); about == "" || d.Err() != nil {
			break
		}
		path[len(path)-1].Target = what
		c, _ := g.claims(t, about, m[5])
		d = g.policy.Decide(&Call{Method: what, Declared: declared, Path: path, Claims: c, Scopes: c.Scopes, Time: now})
	}
	g.last = &d
	want := tenant.Reason(strings.Trim(m[6], "`"))
	if want == "allowed" {
		want = ""
	}
	if tenant.ReasonOf(d.Err()) != want {
		return fmt.Sprintf("%v", d.Explain())
	}
	return ""
}

// claims are for a tenant, with the members that a row gives, and the trust domains
// that they are derived from.
func (g *guide) claims(t *testing.T, about, with string) (*hop.Claims, []hop.Step) {
	t.Helper()
	c := &hop.Claims{Transaction: "t", Tenant: mustTenant(about), Subject: "ann", Attributes: map[string]string{}, IssuedAt: now, Expires: now.Add(time.Minute)}
	c.TenantUID, _ = g.policy.TenantUID(c.Tenant)
	var from []hop.Step
	for member := range strings.FieldsSeq(with) {
		key, value, _ := strings.Cut(member, "=")
		switch name, isAttribute := strings.CutPrefix(key, "tctx."); {
		case isAttribute:
			c.Attributes[name] = value
		case key == "sub":
			c.Subject = value
		case key == "iss":
			c.Issuer = value
		case key == "scope":
			c.Scopes = strings.Split(value, ",")
		case key == "classification":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			c.Classification = uint32(n)
		case key == "ttl":
			life, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			c.Expires = now.Add(life)
		case key == "from":
			c.Parent = &hop.Parent{}
			from = append(from, hop.Step{Signer: ids("spiffe://" + value + "/x")[0]})
		default:
			t.Fatalf("a row gives %s", member)
		}
	}
	return c, from
}

// declaredOf returns what the .proto of a method says, if this program knows it.
func declaredOf(t *testing.T, method string) *Declared {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method[1:], "/", ".")))
	m, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		return nil
	}
	return declared(t, m)
}
