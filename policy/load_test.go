package policy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// small is a document for one change at a time.
const small = `version: 1
trust_domains:
  - name: td.example
workloads:
  - name: a
    match: spiffe://td.example/a
    tenants: [acme]
    originate: {scopes: [s.read]}
    calls: [/p.S/*]
methods:
  - match: /p.S/*
    callers: [a]
tenants:
  acme: {uid: u1}
`

func TestDocumentsRefused(t *testing.T) {
	workload := func(lines string) string {
		return strings.Replace(small, "methods:\n", "  - name: b\n    match: spiffe://td.example/b\n"+lines+"methods:\n", 1)
	}
	match := func(m string) string {
		return strings.Replace(small, "methods:\n", "  - name: b\n    match: "+m+"\nmethods:\n", 1)
	}
	method := func(lines string) string {
		return strings.Replace(small, "tenants:\n  acme", lines+"tenants:\n  acme", 1)
	}
	tenants := func(lines string) string { return small + lines }
	sets := func(lines string) string { return small + "tenant_sets:\n" + lines }
	when := func(quoted string) string {
		return strings.Replace(small, "    callers: [a]\n", "    callers: [a]\n    when: "+quoted+"\n", 1)
	}
	with := func(old, instead string) string {
		if !strings.Contains(small, old) {
			panic(old)
		}
		return strings.Replace(small, old, instead, 1)
	}
	for _, tt := range []struct {
		name, doc string
		want      string // the first error
	}{
		// P1: files that are not a policy.
		{"P1 empty", "", "p.yaml:1:1: the document is empty"},
		{"P1 blank", "\n \n", "p.yaml:1:1: the document is empty"},
		{"P1 comments only", "# policy\n", "p.yaml:1:1: the document is empty"},
		{"P1 null", "null\n", "p.yaml:1:1: a policy is a mapping"},
		{"P1 a list", "- version: 1\n", "p.yaml:1:1: a policy is a mapping"},
		{"P1 no last newline", strings.TrimSuffix(small, "\n"), "p.yaml:14:17: the last line has no end"},
		{"P1 two documents", small + "---\n" + small, "p.yaml:15:1: a second document"},
		{"P1 garbage after the end", small + "...\n{\n", "p.yaml:"},
		{"P1 not UTF-8", with("td.example\n", "td.example\xff\n"), "p.yaml:3:20: the document is not UTF-8"},
		{"P1 UTF-16", "\xff\xfev\x00:\x00", "p.yaml:1:1: the document is not UTF-8"},
		{"P1 too large", small + strings.Repeat("#", MaxDocument) + "\n", "p.yaml:1:1: the document has over 4194304 bytes"},
		{"P1 not YAML", with("[acme]", "[acme"), "p.yaml:8:"},
		{"P1 tabs", with("  - name: td", "\t- name: td"), "p.yaml:3:1: found character"},
		{"P1 deep", "a: " + strings.Repeat("[", 100_000) + "\n", "p.yaml:1:"},
		{"P1 no tenants", small[:strings.Index(small, "tenants:\n")], `p.yaml:1:1: a policy needs the key "tenants"`},
		{"P1 no methods", "version: 1\ntrust_domains: []\nworkloads: []\ntenants: {}\n", `p.yaml:1:1: a policy needs the key "methods"`},

		// P1: keys and types.
		{"P1 unknown key", with("    callers:", "    calers:"), `p.yaml:12:5: unknown key "calers" in a method rule: did you mean "callers"?`},
		{"P1 unknown key far from any", with("    callers: [a]", "    callers: [a]\n    provided: 'true'"), `p.yaml:13:5: unknown key "provided" in a method rule`},
		{"P1 unknown key at the top", small + "extra: 1\n", `p.yaml:15:1: unknown key "extra" in a policy`},
		{"P1 unknown key in originate", with("{scopes:", "{scope:"), `p.yaml:8:17: unknown key "scope" in originate: did you mean "scopes"?`},
		{"P1 unknown tenant attribute", with("{uid: u1}", "{uid: u1, teir: gold}"), `p.yaml:14:19: unknown key "teir" in a tenant: did you mean "tier"?`},
		{"P1 case variant", with("version:", "Version:"), `p.yaml:1:1: unknown key "Version" in a policy: did you mean "version"?`},
		{"P1 key that is a list", with("version: 1", "? [version]\n: 1"), "p.yaml:1:1: a policy needs"},
		{"P1 duplicate key", with("    tenants: [acme]\n", "    tenants: [acme]\n    tenants: [acme]\n"), `p.yaml:8:5: the key "tenants" stands twice, first in line 7`},
		{"P1 duplicate section", small + "methods: []\n", `p.yaml:15:1: the key "methods" stands twice, first in line 10`},
		{"P1 version 2", with("version: 1", "version: 2"), "p.yaml:1:10: this program reads version 1"},
		{"P1 version text", with("version: 1", `version: "1"`), "p.yaml:1:10: this program reads version 1"},
		{"P1 version 01", with("version: 1", `version: 01`), "p.yaml:1:10: this program reads version 1"},
		{"P1 text for a list", with("callers: [a]", "callers: a"), "p.yaml:12:14: callers is a list"},
		{"P1 null for a list", with("callers: [a]", "callers:"), "p.yaml:12:"},
		{"P1 list for a text", with("name: td.example", "name: [td.example]"), "p.yaml:3:11: name is a text"},
		{"P1 number for a text", with("uid: u1", "uid: 17"), `p.yaml:14:15: uid is a text: put it in quotes ("17")`},
		{"P1 empty text", with("uid: u1", `uid: ""`), "p.yaml:14:15: uid is empty"},
		{"P1 yes is no boolean", method("  - match: /p.T/*\n    exempt: yes\n"), "p.yaml:14:13: exempt is true or false"},
		{"P1 quoted true is no boolean", workload("    deny: \"true\"\n"), "p.yaml:12:11: deny is true or false"},
		{"P1 an entry that is a text", with("  - name: td.example", "  - td.example"), "p.yaml:3:5: a trust domain is a mapping"},
		{"P1 tenants as a list", strings.Replace(small, "  acme: {uid: u1}", "  - acme", 1), "p.yaml:14:3: tenants is a mapping"},

		// What makes YAML other than it looks.
		{"anchor", with("[acme]", "&x [acme]"), "p.yaml:7:14: anchors and aliases are not allowed"},
		{"alias", with("[acme]", "&x [acme]\n    calls: *x"), "p.yaml:7:14: anchors and aliases are not allowed"},
		{"alias without anchor", with("[acme]", "*x"), "p.yaml:7:14: "},
		{"merge", with("    tenants: [acme]\n", "    <<: {tenants: [acme]}\n"), "p.yaml:7:5: merge keys are not allowed"},
		{"tag", with("uid: u1", "uid: !!str 17"), "p.yaml:14:15: tags are not allowed"},
		{"binary", with("uid: u1", "uid: !!binary dTE="), "p.yaml:14:15: tags are not allowed"},

		// Trust domains.
		{"I2 trust domain in upper case", with("name: td.example", "name: TD.example"), "p.yaml:3:11: trust domain"},
		{"I2 trust domain with a scheme", with("name: td.example", "name: spiffe://td.example"), "p.yaml:3:11: trust domain"},
		{"I2 trust domain with a port", with("name: td.example", `name: "td.example:1"`), "p.yaml:3:11: trust domain"},
		{"I2 trust domain with a wildcard", with("name: td.example", `name: "*.example"`), "p.yaml:3:11: trust domain"},
		{"trust domain twice", with("  - name: td.example\n", "  - name: td.example\n  - name: td.example\n"), `p.yaml:4:11: trust domain "td.example" stands twice: p.yaml:3`},
		{"trust domain confined to an unlisted tenant", with("td.example\n", "td.example\n    tenants: [globex]\n"), `p.yaml:4:15: tenant "globex" is not listed`},
		{"trust domain confined to {tenant}", with("td.example\n", "td.example\n    tenants: [\"{tenant}\"]\n"), "p.yaml:4:15: {tenant} stands only where the match of the workload has it"},

		// Workloads.
		{"I2 match of an unlisted domain", match("spiffe://other.example/a"), `p.yaml:11:12: trust domain "other.example" is not listed`},
		{"I2 match in upper case", match("spiffe://TD.example/a"), "p.yaml:11:12: "},
		{"I2 match with an escape", match("spiffe://td.example/%2e"), "p.yaml:11:12: "},
		{"I2 match with ..", match("spiffe://td.example/x/../a"), "p.yaml:11:12: "},
		{"I2 match with an empty segment", match("spiffe://td.example//a"), "p.yaml:11:12: "},
		{"I2 match that ends in /", match("spiffe://td.example/x/"), "p.yaml:11:12: "},
		{"I2 match with a query", match("spiffe://td.example/x?y"), "p.yaml:11:12: "},
		{"I3 match without a path", match("spiffe://td.example"), "p.yaml:11:12: a match has a path"},
		{"I3 match that is a path", match("/service/pay"), "p.yaml:11:12: a match begins with spiffe://"},
		{"match overlaps: equal", match("spiffe://td.example/a"), `p.yaml:11:12: entries "a" (p.yaml:5) and "b" (p.yaml:10) may match the same SPIFFE ID`},
		{"match overlaps: star", match("spiffe://td.example/*"), `p.yaml:11:12: entries "a" (p.yaml:5) and "b" (p.yaml:10)`},
		{"match overlaps: rest", match("spiffe://td.example/**"), `p.yaml:11:12: entries "a" (p.yaml:5) and "b" (p.yaml:10)`},
		{"name twice", strings.Replace(workload(""), "name: b", "name: a", 1), `p.yaml:10:11: workload "a" stands twice: p.yaml:5`},
		{"name with a blank", strings.Replace(workload(""), "name: b", "name: b c", 1), "p.yaml:10:11: a workload's name"},
		{"no match", with("    match: spiffe://td.example/a\n", ""), `p.yaml:5:5: a workload needs the key "match"`},
		{"unlisted tenant", workload("    tenants: [globex]\n"), `p.yaml:12:15: tenant "globex" is not listed`},
		{"star beside tenants", workload("    tenants: [\"*\", acme]\n"), `p.yaml:12:15: "*" is all listed tenants`},
		{"tenant twice", workload("    tenants: [acme, acme]\n"), `p.yaml:12:21: "acme" stands twice in tenants`},
		{"{tenant} that match does not capture", workload("    tenants: [\"{tenant}\"]\n"), "p.yaml:12:15: {tenant} stands only where the match of the workload has it"},
		{"captured {tenant} that is not used", match("spiffe://td.example/t/{tenant}\n    tenants: [\"*\"]"), "p.yaml:11:12: {tenant} stands in match and not in tenants"},
		{"deny with tenants", workload("    deny: true\n    tenants: []\n"), "p.yaml:10:5: a deny entry has a name and a match only"},
		{"deny with originate", workload("    deny: true\n    originate: {}\n"), "p.yaml:10:5: a deny entry"},
		{"deny with {tenant}", match("spiffe://td.example/t/{tenant}\n    deny: true"), "p.yaml:11:12: a deny entry has *"},
		{"calls: not a method", workload("    calls: [p.S/M]\n"), `p.yaml:12:13: "p.S/M" is no method`},
		{"calls: any service", workload("    calls: [\"/*\"]\n"), `p.yaml:12:13: "/*" is no method`},
		{"calls: a hyphen, which no protobuf name has", workload("    calls: [/p-q.S/M]\n"), `p.yaml:12:13: "/p-q.S/M" is no method`},
		{"match of a mistyped domain", match("spiffe://td.exampel/b"), `p.yaml:11:12: trust domain "td.exampel" is not listed under trust_domains: did you mean "td.example"?`},
		{"mistyped tenant", workload("    tenants: [acmee]\n"), `p.yaml:12:15: tenant "acmee" is not listed under tenants: did you mean "acme"?`},
		{"deny with publishes", workload("    deny: true\n    publishes: []\n"), "p.yaml:10:5: a deny entry"},
		{"deny with consumes", workload("    deny: true\n    consumes: []\n"), "p.yaml:10:5: a deny entry"},
		{"deny with calls", workload("    deny: true\n    calls: []\n"), "p.yaml:10:5: a deny entry"},
		{"publishes with NATS's rest", workload("    publishes: [\"orders.>\"]\n"), `p.yaml:12:17: "orders.>" has a >: the rest is ** here`},
		{"publishes: an empty segment", workload("    publishes: [orders..x]\n"), "p.yaml:12:17: "},
		{"consumes: part of a segment", workload("    consumes: [orders.x, ord*]\n"), "p.yaml:12:26: "},
		{"consumes: a text", workload("    consumes: orders\n"), "p.yaml:12:15: consumes is a list"},
		{"consumes twice", workload("    consumes: [x, x]\n"), `p.yaml:12:19: "x" stands twice in consumes`},
		{"calls: M4 escaped slash", workload("    calls: [/p.S%2FM]\n"), "p.yaml:12:13: "},

		// Originate.
		{"T9 max_ttl over 1h", with("{scopes:", "{max_ttl: 61m, scopes:"), "p.yaml:8:26: max_ttl is"},
		{"T9 max_ttl 0", with("{scopes:", "{max_ttl: 0s, scopes:"), "p.yaml:8:26: max_ttl is"},
		{"T9 max_ttl negative", with("{scopes:", "{max_ttl: -5m, scopes:"), "p.yaml:8:26: max_ttl is"},
		{"T9 max_ttl without a unit", with("{scopes:", "{max_ttl: 300, scopes:"), "p.yaml:8:26: max_ttl is a text"},
		{"T9 max_ttl in parts of seconds", with("{scopes:", "{max_ttl: 1500ms, scopes:"), "p.yaml:8:26: max_ttl is"},
		{"T9 classification negative", with("{scopes:", "{classification: -1, scopes:"), "p.yaml:8:33: a classification is"},
		{"T9 classification too large", with("{scopes:", "{classification: 4294967296, scopes:"), "p.yaml:8:33: a classification is"},
		{"T9 classification text", with("{scopes:", "{classification: high, scopes:"), "p.yaml:8:33: a classification is"},
		{"T9 classification octal", with("{scopes:", "{classification: 010, scopes:"), "p.yaml:8:33: a classification is"},
		{"T9 issuers with a star", with("{scopes:", "{issuers: [\"*\"], scopes:"), "p.yaml:8:27: issuers are exact"},
		{"T9 empty issuers", with("{scopes:", "{issuers: [], scopes:"), "p.yaml:8:26: an empty list"},
		{"T9 empty subjects", with("{scopes:", "{subjects: [], scopes:"), "p.yaml:8:27: an empty list"},
		{"T9 empty issuer", with("{scopes:", "{issuers: [\"\"], scopes:"), "p.yaml:8:27: each of issuers is empty"},
		{"T9 subject **", with("{scopes:", "{subjects: [\"a**\"], scopes:"), "p.yaml:8:28: in a subject"},
		{"T9 from an unlisted domain", with("{scopes:", "{from: [td.exampl], scopes:"), `p.yaml:8:24: trust domain "td.exampl" is not listed under trust_domains: did you mean "td.example"?`},
		{"T9 empty from", with("{scopes:", "{from: [], scopes:"), "p.yaml:8:23: an empty list"},
		{"T9 from that is a text", with("{scopes:", "{from: td.example, scopes:"), "p.yaml:8:23: from is a list"},
		{"T9 part of a scope segment", with("s.read", "s.re*"), "p.yaml:8:26: "},

		// Methods.
		{"method without a slash", method("  - match: p.T/M\n"), `p.yaml:13:12: "p.T/M" is no method`},
		{"any service", method("  - match: /*/M\n"), "p.yaml:13:12: "},
		{"a package", method("  - match: /p.*\n"), "p.yaml:13:12: "},
		{"part of a name", method("  - match: /p.T/M*\n"), "p.yaml:13:12: "},
		{"exempt with callers", method("  - match: /p.T/M\n    exempt: true\n    callers: [a]\n"), "p.yaml:13:5: an exempt method has a match only"},
		{"exempt with scopes", method("  - match: /p.T/M\n    exempt: true\n    scopes: []\n"), "p.yaml:13:5: an exempt method has a match only"},
		{"exempt with a classification", method("  - match: /p.T/M\n    exempt: true\n    classification: 1\n"), "p.yaml:13:5: an exempt method has a match only"},
		{"exempt with a condition", method("  - match: /p.T/M\n    exempt: true\n    when: 'true'\n"), "p.yaml:13:5: an exempt method has a match only"},
		{"classification of a method, negative", method("  - match: /p.T/M\n    classification: -1\n"), "p.yaml:14:21: a classification is"},
		{"mistyped caller", method("  - match: /p.T/M\n    callers: [ab]\n"), `p.yaml:14:15: no workload is named "ab"`},
		{"exempt within another rule", method("  - match: /p.S/M\n    exempt: true\n"), "p.yaml:13:5: an exemption stands alone, but these rules match the same method: p.yaml:13, p.yaml:11"},
		{"exempt around another rule", method("  - match: /p.T/M\n  - match: /p.T/*\n    exempt: true\n"), "p.yaml:13:5: an exemption stands alone, but these rules match the same method: p.yaml:13, p.yaml:14"},
		{"exempt twice", method("  - match: /p.T/*\n    exempt: true\n  - match: /p.T/*\n    exempt: true\n"), "p.yaml:15:5: an exemption stands alone, but these rules match the same method: p.yaml:13, p.yaml:15"},
		{"unknown caller", method("  - match: /p.T/M\n    callers: [aa]\n"), `p.yaml:14:15: no workload is named "aa"`},
		{"caller that is denied", strings.Replace(workload("    deny: true\n"), "callers: [a]", "callers: [b]", 1), `p.yaml:15:15: the workload "b" is denied (p.yaml:10)`},
		{"scope with a star", method("  - match: /p.T/M\n    scopes: [\"s.*\"]\n"), "p.yaml:14:14: a required scope is exact"},

		// Conditions.
		{"condition that is empty", when(`""`), "p.yaml:13:11: when is empty"},
		{"condition that is a boolean", when("true"), `p.yaml:13:11: when is a text: put it in quotes ("true")`},
		{"condition that is a list", when("[a]"), "p.yaml:13:11: when is a text"},
		{"condition: a variable that there is none of, quoted", when(`'claims.subj == "ann"'`), `p.yaml:13:18: when: undeclared reference to 'claims.subj' (did you mean 'claims.sub'?)`},
		{"condition: a variable that there is none of, plain", when(`1 < 2 && tenant.teir == "gold"`), `p.yaml:13:26: when: undeclared reference to 'tenant.teir' (did you mean 'tenant.tier'?)`},
		{"condition: a variable that there is none of, among others", when(`'method == "x" && user == "ann"'`), `p.yaml:13:29: when: undeclared reference to 'user'`},
		{"condition: a field of a hop that there is none of", when(`'path[0].name == "a"'`), "p.yaml:13:19: when: undefined field 'name'"},
		{"condition: syntax", when(`'1 < '`), "p.yaml:13:16: when: Syntax error"},
		{"condition: syntax in the middle", when(`'1 < < 2'`), "p.yaml:13:16: when: Syntax error"},
		{"condition: types", when(`'claims.classification == "high"'`), "p.yaml:13:34: when: found no matching overload for '_==_' applied to '(int, string)'"},
		{"condition: not a boolean", when(`'claims.sub'`), "p.yaml:13:11: when: a condition is true or false, this one is string"},
		{"condition: any type", when(`'dyn(true)'`), "p.yaml:13:11: when: a condition is true or false, this one is dyn"},
		{"condition: regular expressions", when(`'claims.sub.matches("a.*")'`), "p.yaml:13:30: when: undeclared reference to 'matches'"},
		{"condition: in a block", when("|\n      true &&\n      user == 'x'"), "p.yaml:13:11: when: undeclared reference to 'user'"},
		{"condition: lines that end in CR alone", strings.ReplaceAll(when("'user == 1'"), "\n", "\r") + "\n", "p.yaml:13:11: when: undeclared reference to 'user'"},
		{"condition: too long", when("'" + strings.Repeat(" ", maxCondition) + "true'"), "p.yaml:13:11: when: expression code point size exceeds limit"},
		{"condition: too deep", when("'" + strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000) + "'"), "p.yaml:13:11: when: "},
		{"P5 condition: too dear", when(`'claims.scope.exists(a, claims.scope.exists(b, a + b in claims.scope))'`), "p.yaml:13:11: when: the condition may cost "},
		{"P5 condition: doubling", when("'claims.scope" + strings.Repeat(".map(a, a + a)", 20) + ".exists(a, a == \"x\")'"), "p.yaml:13:11: when: the condition may cost "},
		{"P5 condition: time zones", when(`'claims.scope.exists(a, now.getHours(a) > 3)'`), "p.yaml:13:11: when: the condition may cost "},

		// Tenants.
		{"P4 tenant ''", tenants("  '': {uid: u2}\n"), "p.yaml:15:3: a tenant ID is empty"},
		{"P4 tenant *", tenants("  '*': {uid: u2}\n"), `p.yaml:15:3: tenant "*"`},
		{"P4 tenant 0", tenants("  '0': {uid: u2}\n"), `p.yaml:15:3: tenant "0"`},
		{"P4 tenant 00 unquoted", tenants("  00: {uid: u2}\n"), `p.yaml:15:3: a tenant ID is a text: put it in quotes`},
		{"P4 tenant .", tenants("  .: {uid: u2}\n"), `p.yaml:15:3: tenant "."`},
		{"P4 tenant ..", tenants("  ..: {uid: u2}\n"), `p.yaml:15:3: tenant ".."`},
		{"P4 tenant %2e", tenants("  '%2e': {uid: u2}\n"), `p.yaml:15:3: tenant "%2e"`},
		{"P4 tenant a|b", tenants("  a|b: {uid: u2}\n"), `p.yaml:15:3: tenant "a|b"`},
		{"P4 tenant a:b", tenants("  a:b: {uid: u2}\n"), `p.yaml:15:3: tenant "a:b"`},
		{"P4 tenant with NUL", tenants("  \"a\\0b\": {uid: u2}\n"), `p.yaml:15:3: tenant "a\x00b"`},
		{"P4 tenant in mixed case", tenants("  Acme: {uid: u2}\n"), `p.yaml:15:3: tenant "Acme"`},
		{"P4 tenant in Unicode", tenants("  \u0430cme: {uid: u2}\n"), `p.yaml:15:3: tenant "аcme"`},
		{"P4 tenant {tenant}", tenants("  \"{tenant}\": {uid: u2}\n"), `p.yaml:15:3: tenant "{tenant}"`},
		{"P4 bound tenant in mixed case", workload("    tenants: [Acme]\n"), `p.yaml:12:15: tenant "Acme"`},
		{"tenant twice", tenants("  acme: {uid: u2}\n"), `p.yaml:15:3: tenant "acme" stands twice, first in p.yaml:14`},
		{"D10 uid twice", tenants("  globex: {uid: u1}\n"), `p.yaml:15:17: uid "u1" stands twice, first in p.yaml:14`},
		{"D10 no uid", tenants("  globex: {}\n"), `p.yaml:15:11: a tenant needs the key "uid"`},
		{"D10 uid with a blank", tenants("  globex: {uid: u 2}\n"), "p.yaml:15:17: a uid has"},
		{"tenant without members", tenants("  globex:\n"), "p.yaml:15:"},
		{"tier with a blank", tenants("  globex: {uid: u2, tier: very gold}\n"), "p.yaml:15:27: a tier or region has"},
		{"region with a slash", tenants("  globex: {uid: u2, region: eu/de}\n"), "p.yaml:15:29: a tier or region has"},
		{"classification of a tenant, negative", tenants("  globex: {uid: u2, classification: -1}\n"), "p.yaml:15:37: a classification is"},
		{"tier that is a list", tenants("  globex: {uid: u2, tier: [gold]}\n"), "p.yaml:15:27: tier is a text"},
		{"classification that is a text", tenants("  globex: {uid: u2, classification: top}\n"), "p.yaml:15:37: a classification is"},

		// Tenant sets.
		{"sets as a list", small + "tenant_sets: []\n", "p.yaml:15:14: tenant_sets is a mapping"},
		{"set that is empty", sets("  gold: {}\n"), "p.yaml:16:9: a tenant set is a list of tenants, or their tier, region or both"},
		{"set that is null", sets("  gold:\n"), "p.yaml:16:"},
		{"set that is a text", sets("  gold: acme\n"), "p.yaml:16:9: a tenant set is a list of tenants"},
		{"set with a mistyped key", sets("  gold: {teir: gold}\n"), `p.yaml:16:10: unknown key "teir" in a tenant set: did you mean "tier"?`},
		{"set with another key", sets("  gold: {classification: 1}\n"), `p.yaml:16:10: unknown key "classification" in a tenant set`},
		{"set with an empty tier", sets("  gold: {tier: \"\"}\n"), "p.yaml:16:16: tier is empty"},
		{"set with a tier that no tenant can have", sets("  gold: {tier: \"*\"}\n"), "p.yaml:16:16: a tier or region has"},
		{"set with an unlisted tenant", sets("  gold: [acme, globex]\n"), `p.yaml:16:16: tenant "globex" is not listed`},
		{"set in a set", sets("  gold: [acme]\n  more: [\"set:gold\"]\n"), "p.yaml:17:10: a tenant set has no others in it"},
		{"set with {tenant}", sets("  gold: [\"{tenant}\"]\n"), "p.yaml:16:10: {tenant} stands only where the match of the workload has it"},
		{"set with * and more", sets("  gold: [\"*\", acme]\n"), `p.yaml:16:10: "*" is all listed tenants`},
		{"set whose name is empty", sets("  \"\": [acme]\n"), "p.yaml:16:3: a tenant set's name is empty"},
		{"set whose name has a blank", sets("  go ld: [acme]\n"), "p.yaml:16:3: a tenant set's name has letters"},
		{"set twice", sets("  gold: [acme]\n  gold: [acme]\n"), `p.yaml:17:3: tenant set "gold" stands twice`},
		{"mistyped set", strings.Replace(sets("  gold: [acme]\n"), "tenants: [acme]", `tenants: ["set:glod"]`, 1), `p.yaml:7:15: no tenant set is named "glod": did you mean "gold"?`},
		{"set without a name", strings.Replace(sets("  gold: [acme]\n"), "tenants: [acme]", `tenants: ["set:"]`, 1), `p.yaml:7:15: no tenant set is named ""`},
		{"mistyped set of a trust domain", strings.Replace(sets("  gold: [acme]\n"), "td.example\n", "td.example\n    tenants: [\"set:old\"]\n", 1), `p.yaml:4:15: no tenant set is named "old": did you mean "gold"?`},
		{"tenants_file where there are no files", small + "tenants_file: tenants.list\n", `p.yaml:15:15: tenants_file "tenants.list": the path of a file`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(tt.doc))
			if err == nil || p != nil {
				t.Fatalf("loaded: %v, %v", p, err)
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); !strings.HasPrefix(first, tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			var le *LoadError
			if !errors.As(err, &le) || le.File != "p.yaml" || le.Line < 1 || le.Column < 1 || le.Message == "" {
				t.Errorf("no LoadError with a place: %#v", err)
			}
		})
	}
}

func TestDocumentsAccepted(t *testing.T) {
	for name, doc := range map[string]string{
		"small":           small,
		"nothing allowed": "version: 1\ntrust_domains: []\nworkloads: []\nmethods: []\ntenants: {}\n",
		"CRLF":            strings.ReplaceAll(small, "\n", "\r\n"),
		"start and end":   "---\n" + small + "...\n",
		"false is absent": strings.Replace(small, "    callers:", "    exempt: false\n    callers:", 1),
		"the longest ttl": strings.Replace(small, "{scopes:", "{max_ttl: 1h, scopes:", 1),
		"beside it":       strings.Replace(small, "methods:\n", "  - {name: b, match: spiffe://td.example/ab}\nmethods:\n", 1),
	} {
		if _, err := Parse("p.yaml", []byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAllErrorsAreReported: one run shows what is wrong, within reason.
func TestAllErrorsAreReported(t *testing.T) {
	doc := strings.NewReplacer("version: 1", "version: 2", "callers: [a]", "calers: [a]", "{uid: u1}", "{}").Replace(small)
	_, err := Parse("p.yaml", []byte(doc))
	if got := strings.Count(fmt.Sprint(err), "\n") + 1; got != 3 {
		t.Errorf("%d errors, want 3:\n%v", got, err)
	}
	_, err = Parse("p.yaml", []byte(small+strings.Repeat("x: 1\n", 100)))
	if got := strings.Count(fmt.Sprint(err), "\n") + 1; got != maxErrors+1 || !strings.HasSuffix(fmt.Sprint(err), "and 80 more") {
		t.Errorf("%d lines:\n%v", got, err)
	}
}

// TestTruncated cuts the design's document after every byte (P1). What still
// loads is cut between two lines of tenants, and has only lost tenants.
func TestTruncated(t *testing.T) {
	doc, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("p.yaml", doc); err != nil {
		t.Fatal(err)
	}
	tenants := bytes.Index(doc, []byte("\ntenants:\n"))
	for n := range len(doc) {
		p, err := Parse("p.yaml", doc[:n])
		if err == nil && (n < tenants || doc[n-1] != '\n' || len(slices.Collect(p.tenants.names())) >= 2) {
			t.Errorf("P1 the first %d bytes load, up to %q", n, doc[max(n-20, 0):n])
		}
	}
}

// TestLargeDocuments: a document of many entries loads in good time.
func TestLargeDocuments(t *testing.T) {
	var w, m strings.Builder
	const n = 1500
	for i := range n {
		fmt.Fprintf(&w, "  - {name: w%d, match: \"spiffe://td.example/s%d/{tenant}/*\", tenants: [\"{tenant}\"]}\n", i, i)
		fmt.Fprintf(&w, "  - {name: x%d, match: \"spiffe://td.example/x/%d\"}\n", i, i)
		fmt.Fprintf(&m, "  - {match: /p.S/M%d, callers: [w%d]}\n", i, i)
	}
	doc := "version: 1\ntrust_domains: [{name: td.example}]\nworkloads:\n" + w.String() + "methods:\n" + m.String() + "tenants: {acme: {uid: u1}}\n"
	start := time.Now()
	p, err := Parse("large.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries, %d bytes: %s", 3*n, len(doc), time.Since(start))
	if d := p.Covers("/p.S/M1499", nil); d.Err() != nil {
		t.Error(d.Err())
	}
}

// TestCostlyDocuments: what would take minutes or gigabytes to compile is refused
// in good time (P1).
func TestCostlyDocuments(t *testing.T) {
	fill := func(head, entry string) string {
		b := []byte(head)
		for i := 0; len(b) < MaxDocument/2; i++ {
			b = fmt.Appendf(b, entry, i)
		}
		return string(b)
	}
	const (
		domains = "version: 1\ntrust_domains: [{name: td.example}]\ntenants: {}\n"
		many    = "too many patterns"
	)
	for _, tt := range []struct{ name, doc, want string }{
		{"P1 patterns", fill(domains+"methods: []\nworkloads:\n", "  - {name: w%[1]d, match: \"spiffe://td.example/%[1]d-*\"}\n"), many},
		{"P1 captures", fill(domains+"methods: []\nworkloads:\n", "  - {name: w%[1]d, match: \"spiffe://td.example/{tenant}.%[1]d\", tenants: [\"{tenant}\"]}\n"), many},
		{"P1 conditions", fill(domains+"workloads: []\nmethods:\n", "  - {match: /p.S/M%d, when: 'true'}\n"), "over 4000 conditions"},
		{"P1 rules for a service", fill(domains+"workloads: []\nmethods:\n", "  - match: /p.S/*\n  - match: /p.S/%d\n"), "more than 32 rules match"},
		{"P1 rules for a method", fill(domains+"workloads: []\nmethods:\n", "  - match: /p.S/M\n#%d\n"), "more than 32 rules match"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("p.yaml", []byte(tt.doc))
			t.Logf("%d bytes: %s", len(tt.doc), time.Since(start))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v does not say %q", err, tt.want)
			}
		})
	}
}

// TestConcurrentLoads: documents are compiled and decide at the same time (P2).
func TestConcurrentLoads(t *testing.T) {
	var loads sync.WaitGroup
	for range 4 {
		loads.Go(func() {
			for range 5 {
				p, err := Parse("mesh.yaml", []byte(meshDoc(asWritten)))
				if err != nil {
					t.Error(err)
					return
				}
				c := callOf(late, ids("gateway"), claims(), nil)
				if d := p.Decide(&c); d.Err() != nil {
					t.Error(d.Err())
				}
			}
		})
	}
	loads.Wait()
}

func TestLoadFile(t *testing.T) {
	if _, err := LoadFile(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadFile(t.TempDir()); err == nil {
		t.Error("a directory loads")
	}
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, append([]byte(small), bytes.Repeat([]byte("#\n"), MaxDocument/2)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "over 4194304 bytes") {
		t.Errorf("P1 a file over the limit: %v", err)
	}
	a, err := LoadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse("p.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if a.Version() == b.Version() {
		t.Error("two documents of one version")
	}
}
