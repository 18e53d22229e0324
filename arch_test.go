package tenantmesh_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tenantmesh/tenantmesh"

// Third-party packages, named by a prefix of their import path.
var (
	protobuf = []string{"google.golang.org/protobuf"}
	// A gRPC service is made of protobuf messages and google.rpc statuses.
	grpc     = []string{"google.golang.org/grpc", "google.golang.org/genproto/googleapis/rpc", "google.golang.org/protobuf"}
	spiffe   = []string{"github.com/spiffe/go-spiffe/v2"}
	spiffeID = []string{"github.com/spiffe/go-spiffe/v2/spiffeid"}
	cel      = []string{"github.com/google/cel-go", "cel.dev", "google.golang.org/genproto/googleapis/api/expr", "google.golang.org/protobuf"}
	yaml     = []string{"go.yaml.in/yaml", "gopkg.in/yaml.v3", "github.com/goccy/go-yaml"}
	anything = []string{"*"}
)

// row is a line of the architecture's table.
type row struct {
	// pkg is a package path below the module, or with /... also all below it.
	pkg string
	// imports are the third-party packages that it may import itself.
	imports []string
	// noGRPC says that it must not reach grpc, however far away.
	noGRPC bool
	// drivers says that it may reach drivers, telemetry and test frameworks.
	drivers bool
}

// table holds who may import whom: a package imports only those of its own
// row and of earlier ones. The first row that fits a package counts.
var table = []row{
	{pkg: "proto/tenantmesh/v1", imports: protobuf, noGRPC: true},
	{pkg: "proto/tenantmesh/...", imports: grpc},
	{pkg: "internal/mint", imports: spiffeID, noGRPC: true},
	{pkg: "tenant", imports: spiffeID, noGRPC: true},
	{pkg: "internal/fields", imports: protobuf, noGRPC: true},
	{pkg: "internal/testproto/...", imports: grpc}, // only for tests
	{pkg: "internal/leaf", imports: spiffe, noGRPC: true},
	{pkg: "svid", imports: slices.Concat(grpc, spiffe)},
	{pkg: "svid/devdomain", imports: slices.Concat(grpc, spiffe, []string{"github.com/go-jose/go-jose/v4"})},
	{pkg: "internal/claimed", noGRPC: true},
	{pkg: "internal/vectors", noGRPC: true}, // only for tests
	// cryptobyte reads and writes the DER of a signature strictly.
	{pkg: "hop", imports: slices.Concat(protobuf, spiffeID, []string{
		"github.com/spiffe/go-spiffe/v2/svid", "github.com/spiffe/go-spiffe/v2/bundle", "golang.org/x/crypto/cryptobyte",
	}), noGRPC: true},
	// Only for tests, and for the attackers of e2e.
	{pkg: "internal/attacktest", imports: slices.Concat(grpc, spiffe, []string{"golang.org/x/net/http2", "github.com/go-jose/go-jose/v4"})},
	{pkg: "policy", imports: slices.Concat(protobuf, spiffeID, cel, yaml, []string{"github.com/fsnotify/fsnotify"}), noGRPC: true},
	{pkg: "policy/...", imports: anything, drivers: true}, // a policy source's own package
	{pkg: "audit", imports: spiffeID, noGRPC: true},
	{pkg: "audit/...", imports: anything, drivers: true}, // a sink's own package
	{pkg: "interceptors", imports: slices.Concat(grpc, spiffe, []string{"github.com/grpc-ecosystem/go-grpc-middleware/v2"})},
	// edge takes tokens from gRPC as from HTTP.
	{pkg: "edge", imports: slices.Concat(grpc, spiffeID, []string{"github.com/coreos/go-oidc/v3", "github.com/go-jose/go-jose/v4"})},
	{pkg: "elevation", imports: slices.Concat(grpc, spiffeID)},
	{pkg: "data/rls/...", imports: slices.Concat(spiffeID, []string{"github.com/jackc/pgx/v5"}), drivers: true},
	{pkg: "data/cache/...", imports: slices.Concat(spiffeID, []string{"github.com/redis/go-redis/v9", "github.com/maypok86/otter/v2"}), drivers: true},
	{pkg: "data/queue/...", imports: slices.Concat(protobuf, spiffeID, []string{"github.com/nats-io/nats.go", "github.com/twmb/franz-go"}), drivers: true},
	{pkg: "tenanttest", imports: slices.Concat(grpc, spiffe)},
	{pkg: "internal/child", noGRPC: true},                                                 // only for tests and the harness
	{pkg: "internal/pgtest", imports: []string{"github.com/jackc/pgx/v5"}, drivers: true}, // only for tests
	{pkg: "cmd/...", imports: anything, drivers: true},
	{pkg: "conformance/...", imports: slices.Concat(protobuf, spiffe)},
	{pkg: "proto/...", imports: grpc}, // of the examples
	{pkg: "examples/...", imports: anything, drivers: true},
	{pkg: "e2e/...", imports: anything, drivers: true},
	{pkg: "."}, // only the overview
}

// importers lists who may import the packages that not everybody may.
var importers = map[string][]string{
	// Who can make a verified tenant context: the packages that verify, and tenant, which reads it.
	"internal/mint": {"tenant", "interceptors", "tenanttest"},
	// The checks of an X.509-SVID.
	"internal/leaf": {"svid", "svid/devdomain", "hop", "policy", "interceptors"},
	// What a .proto says of its fields.
	"internal/fields": {"interceptors"},
	// The headers by which clients name a tenant: only for audit.
	"internal/claimed": {"hop", "interceptors", "edge"},
}

const grpcPath = "google.golang.org/grpc"

// drivers are what only rows with drivers set may reach.
var drivers = []string{
	"github.com/jackc/pgx", "github.com/redis/go-redis", "github.com/nats-io", "github.com/twmb/franz-go",
	"go.opentelemetry.io",
	"github.com/stretchr/testify", "github.com/onsi/ginkgo", "github.com/onsi/gomega", "github.com/google/go-cmp",
	"go.uber.org/goleak", "go.uber.org/mock", "pgregory.net/rapid", "github.com/rogpeppe/go-internal/testscript",
}

// TestArchitecture holds the module's packages to the table.
func TestArchitecture(t *testing.T) {
	g, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations(g) {
		t.Error(v)
	}
}

// TestViolations shows that each rule finds what it forbids, in a graph that
// breaks it, and nothing in one that does not.
func TestViolations(t *testing.T) {
	// Paths that start with "./" are the module's own.
	for _, c := range []struct {
		name  string
		graph graph
		want  []string // a part of each violation
	}{
		{"in order", graph{
			"./tenant":       {"context", "github.com/spiffe/go-spiffe/v2/spiffeid", "./internal/mint"},
			"./hop":          {"./tenant", "./proto/tenantmesh/v1", "./internal/leaf", "google.golang.org/protobuf/proto"},
			"./interceptors": {"./hop", "./svid", "./internal/mint", "google.golang.org/grpc/codes", "google.golang.org/grpc"},
		}, nil},
		{"grpc directly", graph{"./hop": {grpcPath}}, []string{
			"hop imports google.golang.org/grpc, which is not among",
			"hop must not reach google.golang.org/grpc: hop → google.golang.org/grpc",
		}},
		{"grpc by way of a row above", graph{"./hop": {"./svid"}, "./svid": {grpcPath}},
			[]string{"hop → svid → google.golang.org/grpc"}},
		{"grpc by way of a third party", graph{
			"./policy":                       {"github.com/google/cel-go/cel"},
			"github.com/google/cel-go/cel":   {"example.com/x"},
			"example.com/x":                  {"google.golang.org/grpc/status"},
			"google.golang.org/grpc/status":  {grpcPath},
			"google.golang.org/grpcnot/here": nil,
		}, []string{"policy → github.com/google/cel-go/cel → example.com/x → google.golang.org/grpc/status"}},
		{"a later row", graph{"./tenant": {"./hop"}}, []string{"tenant imports hop, which is below it"}},
		{"an earlier row's subpackage", graph{"./svid": {"./svid/devdomain"}}, []string{"svid imports svid/devdomain, which is below it"}},
		{"its own row", graph{"./data/queue": {"./data/queue/natsq"}, "./cmd/tenantmesh": {"./cmd/tenantmesh/internal/check"}}, nil},
		{"another's driver", graph{"./data/rls": {"github.com/nats-io/nats.go"}}, []string{"data/rls imports github.com/nats-io/nats.go, which is not among"}},
		{"examples' protos", graph{"./edge": {"./proto/examples/orders/v1"}, "./examples/quickstart": {"./proto/examples/orders/v1"}},
			[]string{"edge imports proto/examples/orders/v1, which is below it"}},
		{"a prefix is a whole segment", graph{"./tenant": {"github.com/spiffe/go-spiffe/v2/spiffeidx"}}, []string{"spiffeidx, which is not among"}},
		{"mint", graph{"./edge": {"./internal/mint"}}, []string{"edge must not import internal/mint"}},
		{"leaf", graph{"./edge": {"./internal/leaf"}}, []string{"edge must not import internal/leaf"}},
		{"a driver directly", graph{"./interceptors": {"github.com/redis/go-redis/v9"}}, []string{
			"interceptors imports github.com/redis/go-redis/v9, which is not among",
			"interceptors must not reach github.com/redis/go-redis/v9",
		}},
		{"telemetry by way of a third party", graph{
			"./interceptors": {"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"},
			"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors": {"go.opentelemetry.io/otel/trace"},
		}, []string{"interceptors must not reach go.opentelemetry.io/otel/trace"}},
		{"a test framework", graph{"./tenanttest": {"github.com/google/go-cmp/cmp"}}, []string{
			"which is not among", "tenanttest must not reach github.com/google/go-cmp/cmp",
		}},
		{"a sink's own package", graph{
			"./audit/postgres": {"./audit", "github.com/jackc/pgx/v5"},
			"./interceptors":   {"./audit/postgres"},
		}, []string{"interceptors must not reach github.com/jackc/pgx/v5: interceptors → audit/postgres → github.com/jackc/pgx/v5"}},
		{"unknown", graph{"./helpers": {"fmt"}}, []string{"helpers is not in the table of arch_test.go"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := graph{}
			for p, imports := range c.graph {
				g[own(p)] = nil
				for _, i := range imports {
					g[own(p)] = append(g[own(p)], own(i))
				}
			}
			got := violations(g)
			if len(got) != len(c.want) {
				t.Errorf("%d violations, want %d: %q", len(got), len(c.want), got)
			}
			for _, w := range c.want {
				if !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, w) }) {
					t.Errorf("no violation says %q: %q", w, got)
				}
			}
		})
	}
}

func own(path string) string {
	if rest, ok := strings.CutPrefix(path, "./"); ok {
		return module + "/" + rest
	}
	return path
}

// graph maps an import path to the import paths that it imports.
type graph map[string][]string

// load asks go list for the packages of this module and all that they reach.
// The imports of tests are not among them.
func load() (graph, error) {
	cmd := exec.Command("go", "list", "-buildvcs=false", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := graph{}
	for dec := json.NewDecoder(out); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g, cmd.Wait()
		} else if err != nil {
			return nil, errors.Join(err, cmd.Wait())
		}
		g[p.ImportPath] = p.Imports
	}
}

// violations says what in g breaks the table.
func violations(g graph) []string {
	var vs []string
	report := func(format string, args ...any) { vs = append(vs, fmt.Sprintf(format, args...)) }
	for _, path := range slices.Sorted(maps.Keys(g)) {
		if !within(path, module) {
			continue
		}
		pkg := short(path)
		i := find(pkg)
		if i < 0 {
			report("%s is not in the table of arch_test.go: give it a row where it belongs, with what it may import", pkg)
			continue
		}
		r := table[i]
		for _, imp := range g[path] {
			switch {
			case within(imp, module):
				target := short(imp)
				if only := importers[target]; only != nil && !slices.Contains(only, pkg) {
					report("%s must not import %s: only %s may", pkg, target, strings.Join(only, ", "))
				}
				if find(target) > i {
					report("%s imports %s, which is below it in the table of arch_test.go", pkg, target)
				}
			case thirdParty(imp) && !slices.Contains(r.imports, "*") && !slices.ContainsFunc(r.imports, func(p string) bool { return within(imp, p) }):
				report("%s imports %s, which is not among the third-party packages of its row in arch_test.go", pkg, imp)
			}
		}
		if r.noGRPC {
			if way := g.way(path, func(p string) bool { return within(p, grpcPath) }); way != nil {
				report("%s must not reach %s: %s", pkg, grpcPath, strings.Join(way, " → "))
			}
		}
		if !r.drivers {
			driver := func(p string) bool {
				return slices.ContainsFunc(drivers, func(d string) bool { return within(p, d) })
			}
			if way := g.way(path, driver); way != nil {
				report("%s must not reach %s: %s", pkg, way[len(way)-1], strings.Join(way, " → "))
			}
		}
	}
	return vs
}

// find returns the index of the row that pkg belongs to, or -1.
func find(pkg string) int {
	return slices.IndexFunc(table, func(r row) bool {
		tree, ok := strings.CutSuffix(r.pkg, "/...")
		return pkg == r.pkg || ok && within(pkg, tree)
	})
}

// way returns the shortest chain of imports from a package to one that is
// sought, both included, or nil.
func (g graph) way(from string, sought func(string) bool) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		if sought(p) {
			var way []string
			for ; p != ""; p = before[p] {
				way = append(way, short(p))
			}
			slices.Reverse(way)
			return way
		}
		for _, i := range g[p] {
			if _, seen := before[i]; !seen {
				before[i] = p
				queue = append(queue, i)
			}
		}
	}
	return nil
}

// within says whether path is parent or lies below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// short takes the module's path off its packages, and calls its root ".".
func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// thirdParty says whether path is outside the standard library, whose paths
// start with a name that is no domain.
func thirdParty(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}
