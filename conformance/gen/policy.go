package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

const (
	acmeUID   = "01J9ZK3V5Q8W7RBNXH2C4D6E8F"
	globexUID = "01JA2M4N6P8R0T2V4X6Z8B0D2F"
)

// policyDocument returns the policy of policy.json, which has all constructs.
func policyDocument() object {
	const orders, inventory = "/orders.v1.Orders/", "/inventory.v1.Inventory/"
	workload := func(name, match string, tenants []string, originate object, calls ...string) object {
		return object{"name": name, "match": match, "tenants": tenants, "originate": originate, "calls": calls}
	}
	forwards := func(o object, members object) object {
		delete(o, "originate")
		for k, v := range members {
			o[k] = v
		}
		return o
	}
	const prod = "spiffe://prod.example/"
	methods := []object{
		{"match": "/grpc.health.v1.Health/*", "exempt": true},
		{"match": orders + "*", "callers": []string{"gateway", "runner", "pay", "dotted", "gold", "boundary", "partner", "batch"}},
		{"match": orders + "Export", "scopes": []string{"orders.export"}, "classification": 1},
		{"match": orders + "Export", "classification": 2, "callers": []string{"gateway", "pay"}},
		{"match": orders + "Nobody", "callers": []string{}},
		{"match": inventory + "*", "callers": []string{"orders"}},
		{"match": "/lonely.v1.Lonely/*"},
	}
	for name, when := range conditions {
		methods = append(methods, object{"match": orders + name, "when": when})
	}
	slices.SortStableFunc(methods, func(a, b object) int { return strings.Compare(fmt.Sprint(a["match"]), fmt.Sprint(b["match"])) })
	return object{
		"version": 1,
		"trust_domains": []object{
			{"name": "prod.example"}, {"name": "partner.example", "tenants": []string{"acme"}}, {"name": "mute.example", "tenants": []string{}},
		},
		"workloads": []object{
			workload("gateway", prod+"gateway", []string{"*"}, object{
				"issuers": []string{"https://login.example"}, "scopes": []string{"orders.*", "admin.**"}, "subjects": []string{"user:*", "desk"},
				"classification": 2, "max_ttl": "10m",
			}, orders+"*"),
			workload("runner", prod+"ns/tenant-{tenant}/sa/*", []string{"{tenant}"}, object{"scopes": []string{"orders.read"}}, orders+"List"),
			forwards(workload("orders", prod+"orders", []string{"*"}, nil, inventory+"*"), object{
				"publishes": []string{"orders.*.placed", "audit.**"}, "consumes": []string{"orders.new"},
			}),
			workload("pay", prod+"service/pay", []string{"acme"}, object{}, orders+"List"),
			workload("dotted", prod+"a.b", []string{"acme"}, object{}, orders+"List"),
			workload("gold", prod+"gold", []string{"set:gold"}, object{}, orders+"List"),
			workload("boundary", prod+"boundary", []string{"acme"}, object{"scopes": []string{"orders.read"}, "from": []string{"partner.example"}}, orders+"List"),
			workload("partner", "spiffe://partner.example/**", []string{"*"}, object{}, orders+"List"),
			forwards(workload("mute", "spiffe://mute.example/a", []string{"*"}, nil, orders+"List"), nil),
			workload("batch", prod+"batch/*", []string{"acme"}, object{}, orders+"List"),
			{"name": "old", "match": prod + "batch/old-*", "deny": true},
			{"name": "older", "match": prod + "batch/*-old", "deny": true},
		},
		"methods":     methods,
		"tenant_sets": object{"gold": object{"tier": "gold"}, "everybody": []string{"acme", "globex"}},
		"tenants": object{
			"acme":   object{"uid": acmeUID, "tier": "gold", "region": "eu", "classification": 2},
			"globex": object{"uid": globexUID},
		},
	}
}

// conditions are those of methods of Orders, by their names.
var conditions = map[string]string{
	"WhenTrue":       "true",
	"WhenTier":       `tenant.tier != "free"`,
	"WhenRegion":     `tenant.region == "eu"`,
	"WhenTenant":     "tenant.classification <= 3",
	"WhenIssuer":     `claims.iss != "https://evil.example"`,
	"WhenDepartment": `claims.tctx.department != "hr"`,
	"WhenAgent":      `!(claims.rctx["agent"] == "robot")`,
	"WhenDivided":    "1 / (2 - claims.classification) >= -5",
	"WhenOverflow":   "9223372036854775806 + claims.classification > 0",
	"WhenNumber":     "int(claims.sub) >= 0",
	"WhenDynamic":    "dyn(claims.sub) > 1",
	"WhenDirect":     "path.size() == 1",
	"WhenSecond":     `path[1].workload != "gateway"`,
	"WhenOrigin":     `path[0].workload == "gateway" && path[0].method.startsWith("/orders.v1.Orders/")`,
	"WhenEarly":      `now < timestamp("2026-03-01T12:00:01Z")`,
	"WhenScope":      `"orders.write" in claims.scope`,
}

// policyQuestion is the input of a question about the document: what the
// gateway asks for acme.
func policyQuestion(question string) object {
	c := someClaims()
	c.Sub, c.Scope = "user:alice", []string{"orders.read"}
	in := object{"policy": policyDocument(), "question": question, "path": []object{{"id": "spiffe://prod.example/gateway"}}}
	switch question {
	case "covers", "admit", "call", "decide":
		in["method"] = "/orders.v1.Orders/List"
	case "publish", "consume":
		in["queue"] = "audit.orders"
		in["path"] = []object{{"id": "spiffe://prod.example/orders"}}
	}
	if question == "consume" {
		in["queue"] = "orders.new"
	}
	if question == "decide" || question == "originate" {
		in["claims"] = claimsObject(c)
	}
	if question == "decide" {
		in["scopes"], in["now"] = c.Scope, noon.Unix()
		in["path"] = []object{{"id": "spiffe://prod.example/gateway", "method": "/orders.v1.Orders/List"}}
	}
	return in
}

// signed sets the path: the IDs of workloads of prod.example, or others.
func signed(in object, names ...string) {
	var path []object
	for _, name := range names {
		if !strings.Contains(name, "://") {
			name = "spiffe://prod.example/" + name
		}
		step := object{"id": name}
		if in["question"] == "decide" {
			step["method"] = in["method"]
		}
		path = append(path, step)
	}
	in["path"] = path
}

// claiming changes the claims.
func claiming(in object, change func(*pb.Claims)) {
	c := someClaims()
	c.Sub, c.Scope = "user:alice", []string{"orders.read"}
	change(c)
	in["claims"] = claimsObject(c)
	if in["question"] == "decide" {
		in["scopes"] = append([]string{}, c.Scope...)
	}
}

// unvouched are claims of a workload that names no issuer.
func unvouched(c *pb.Claims) { c.Iss, c.Scope, c.Tctx.Classification = "", nil, 0 }

func forGlobex(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", globexUID }

func policyVectors() []vectors.Vector {
	bases := map[string]vectors.Vector{}
	var out []vectors.Vector
	add := func(v vectors.Vector) { out = append(out, v) }
	allowed := func(names ...string) object {
		return object{"workloads": append([]string{}, names...), "exempt": false}
	}
	for _, b := range []struct {
		question, comment string
		ok                object
	}{
		{"covers", "Rules cover the method.", allowed()},
		{"admit", "The peer may call the method.", allowed("gateway")},
		{"decide", "The call may run.", allowed("gateway")},
		{"call", "The workload itself may make the call.", allowed("gateway")},
		{"originate", "The workload may originate the claims.", allowed("gateway")},
		{"publish", "The workload may publish to the queue.", allowed("orders")},
		{"consume", "The workload may consume from the queue.", allowed("orders")},
	} {
		v := base(b.question, b.comment, policyQuestion(b.question), b.ok)
		bases[b.question] = v
		add(v)
	}
	yes := func(lines, question, comment string, ok object, change func(in object)) {
		in := policyQuestion(question)
		change(in)
		add(derived(lines, comment, bases[question], in, ok, "", -1))
	}
	no := func(lines, question, comment, reason string, hop int, change func(in object)) {
		in := policyQuestion(question)
		change(in)
		add(derived(lines, comment, bases[question], in, nil, reason, hop))
	}
	policyLoads(yes, no, allowed)
	policyOrder(yes, no, allowed)
	policyNames(yes, no, allowed)
	policyConditions(yes, no, allowed)
	policyBindings(yes, no, allowed)
	policyMethods(yes, no, allowed)
	policyOriginations(yes, no, allowed)
	policyQueues(yes, no, allowed)
	return out
}

type (
	allow = func(lines, question, comment string, ok object, change func(in object))
	deny  = func(lines, question, comment, reason string, hop int, change func(in object))
)

const unavailable = "POLICY_UNAVAILABLE"

// edit changes the document; entries of a list by the value of one of their members.
func edit(change func(doc object)) func(object) {
	return func(in object) { change(in["policy"].(object)) } //nolint:errcheck // policyQuestion makes it one
}

func entry(doc object, list, key, value string) object {
	entries := doc[list].([]object) //nolint:errcheck // policyDocument makes it one
	i := slices.IndexFunc(entries, func(e object) bool { return e[key] == value })
	return entries[i]
}

func appended(doc object, list string, entries ...object) {
	doc[list] = append(doc[list].([]object), entries...) //nolint:errcheck // policyDocument makes it one
}

// policyLoads: documents that are none, and no document.
func policyLoads(yes allow, no deny, allowed func(...string) object) {
	for _, question := range []string{"covers", "admit", "decide", "call", "originate", "publish", "consume"} {
		no("P6", question, "No policy: "+question+".", unavailable, -1, func(in object) { delete(in, "policy") })
	}
	text := string(compact(policyDocument())) + "\n"
	yes("P1", "admit", "The document as text.", allowed("gateway"), func(in object) { in["policy"] = text })
	for comment, doc := range map[string]string{
		"An empty document.":                  "",
		"A document of white space.":          " \n\n",
		"The document without its last byte.": strings.TrimSuffix(text, "\n"),
		"The document cut in half.":           text[:len(text)/2],
		"Two documents.":                      text + "---\n" + text,
		"Something behind the document.":      text + "}\n",
		"A list.":                             "[]\n",
		"A document that is null.":            "null\n",
		"A document with NUL.":                strings.Replace(text, "{", "{\x00", 1),
	} {
		no("P1", "admit", comment, unavailable, -1, func(in object) { in["policy"] = doc })
	}
	for _, m := range []struct {
		comment string
		change  func(doc object)
	}{
		{"An unknown section.", func(d object) { d["extra"] = []string{} }},
		{"No section of tenants.", func(d object) { delete(d, "tenants") }},
		{"No section of methods.", func(d object) { delete(d, "methods") }},
		{"Version 2.", func(d object) { d["version"] = 2 }},
		{"A version that is a text.", func(d object) { d["version"] = "1" }},
		{"An unknown key of a workload.", func(d object) { entry(d, "workloads", "name", "pay")["tenant"] = []string{"acme"} }},
		{"An unknown key of a method.", func(d object) { entry(d, "methods", "match", "/lonely.v1.Lonely/*")["caller"] = []string{"pay"} }},
		{"An unknown key of origination.", func(d object) {
			entry(d, "workloads", "name", "pay")["originate"] = object{"scope": []string{"orders.read"}}
		}},
		{"An unknown key of a tenant.", func(d object) {
			d["tenants"] = object{"acme": object{"uid": acmeUID, "teir": "gold"}, "globex": object{"uid": globexUID}}
		}},
		{"A text in place of a list.", func(d object) { entry(d, "workloads", "name", "pay")["tenants"] = "acme" }},
		{"Two workloads of one name.", func(d object) { appended(d, "workloads", object{"name": "pay", "match": "spiffe://prod.example/pay2"}) }},
		{"A caller that is no workload.", func(d object) { appended(d, "methods", object{"match": "/x.v1.X/*", "callers": []string{"nobody"}}) }},
		{"A caller that is denied.", func(d object) { appended(d, "methods", object{"match": "/x.v1.X/*", "callers": []string{"old"}}) }},
		{"A tenant set that there is none of.", func(d object) { entry(d, "workloads", "name", "pay")["tenants"] = []string{"set:golden"} }},
		{"A tenant set in another.", func(d object) { d["tenant_sets"].(object)["more"] = []string{"set:gold"} }}, //nolint:errcheck // it is one
		{"A tenant set that asks for nothing.", func(d object) { d["tenant_sets"].(object)["more"] = object{} }},  //nolint:errcheck // it is one
		{"A tenants_file that is not there.", func(d object) { d["tenants_file"] = "none.list" }},
	} {
		no("P1", "admit", m.comment, unavailable, -1, edit(m.change))
	}
	const list = "hooli uid=01JB7QZX4T9S2VWYC5D8F0H3KM tier=gold\ninitech uid=01JB7R1C6E8G0J2L4N6Q8S0U2W classification=3\nend: 2\n"
	withList := func(list string) func(object) {
		return func(in object) {
			in["policy"].(object)["tenants_file"] = "tenants.list" //nolint:errcheck // it is one
			in["tenants_file"] = list
			claiming(in, func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "initech", "01JB7R1C6E8G0J2L4N6Q8S0U2W" })
		}
	}
	yes("P1", "originate", "A tenant of the tenants_file.", allowed("gateway"), withList(list))
	for comment, list := range map[string]string{
		"A tenants_file without its last line.":         "hooli uid=01JB7QZX4T9S2VWYC5D8F0H3KM\ninitech uid=01JB7R1C6E8G0J2L4N6Q8S0U2W\n",
		"A tenants_file that was cut within a line.":    list[:60],
		"A tenants_file that has lost a tenant.":        "initech uid=01JB7R1C6E8G0J2L4N6Q8S0U2W\nend: 2\n",
		"A tenants_file that goes on behind its end.":   list + "acme2 uid=x\n",
		"A tenants_file whose lines end in CR LF.":      strings.ReplaceAll(list, "\n", "\r\n"),
		"A tenants_file with an unknown key.":           strings.Replace(list, "tier=", "teir=", 1),
		"A tenants_file with a tenant twice.":           strings.Replace(list, "hooli", "initech", 1),
		"A tenants_file with a uid twice.":              strings.Replace(list, "01JB7QZX4T9S2VWYC5D8F0H3KM", "01JB7R1C6E8G0J2L4N6Q8S0U2W", 1),
		"A tenants_file with a tenant of the document.": strings.Replace(list, "hooli", "acme", 1),
		"A tenants_file with a tenant in mixed case.":   strings.Replace(list, "hooli", "Hooli", 1),
		"A tenants_file with two blanks.":               strings.Replace(list, " tier", "  tier", 1),
		"A tenants_file with a classification below 0.": strings.Replace(list, "classification=3", "classification=-3", 1),
	} {
		no("P1", "originate", comment, unavailable, -1, withList(list))
	}
}

// policyOrder: entries in another order.
func policyOrder(yes allow, no deny, allowed func(...string) object) {
	reversed := func(in object) {
		doc := in["policy"].(object) //nolint:errcheck // it is one
		for _, list := range []string{"trust_domains", "workloads", "methods"} {
			slices.Reverse(doc[list].([]object)) //nolint:errcheck // it is one
		}
	}
	with := func(change func(in object)) func(object) { return func(in object) { reversed(in); change(in) } }
	yes("P3", "decide", "Entries in reverse: a call that may run.", allowed("gateway"), reversed)
	yes("P3", "publish", "Entries in reverse: a queue.", allowed("orders"), reversed)
	no("P3", "admit", "Entries in reverse: deny wins.", "WORKLOAD_DENIED", -1, with(func(in object) { signed(in, "batch/old-7") }))
	no("P3", "admit", "Entries in reverse: deny wins by the other entry.", "WORKLOAD_DENIED", -1, with(func(in object) { signed(in, "batch/7-old") }))
	no("P3", "admit", "Entries in reverse: all rules with callers count.", "CALLER_NOT_ALLOWED", -1, with(func(in object) {
		in["method"] = "/orders.v1.Orders/Export"
		signed(in, "gold")
	}))
	no("P3", "decide", "Entries in reverse: the highest classification counts.", "CLASSIFICATION_NOT_ALLOWED", -1, with(func(in object) {
		in["method"] = "/orders.v1.Orders/Export"
		signed(in, "gateway")
		claiming(in, func(c *pb.Claims) { c.Scope, c.Tctx.Classification = []string{"orders.export"}, 1 })
	}))
	no("P3", "decide", "Entries in reverse: every scope counts.", "SCOPE_MISSING", -1, with(func(in object) {
		in["method"] = "/orders.v1.Orders/Export"
		signed(in, "gateway")
	}))
	for comment, order := range map[string]bool{"Two entries that match one ID.": false, "Two entries that match one ID, the wider first.": true} {
		no("P3", "admit", comment, unavailable, -1, edit(func(doc object) {
			appended(doc, "workloads", object{"name": "wide", "match": "spiffe://prod.example/*"})
			if order {
				slices.Reverse(doc["workloads"].([]object)) //nolint:errcheck // it is one
			}
		}))
	}
	for comment, order := range map[string]bool{"An exemption beside a rule.": false, "An exemption beside a rule, and before it.": true} {
		no("P3 M5", "admit", comment, unavailable, -1, edit(func(doc object) {
			appended(doc, "methods", object{"match": "/orders.v1.Orders/Version", "exempt": true})
			if order {
				slices.Reverse(doc["methods"].([]object)) //nolint:errcheck // it is one
			}
		}))
	}
}

// policyNames: names of tenants.
func policyNames(yes allow, no deny, allowed func(...string) object) {
	for comment, name := range map[string]string{
		"A tenant without a name.": "", "A tenant named *.": "*", "A tenant named 0.": "0", "A tenant named with a dot.": ".", "A tenant named with two dots.": "..",
		"A tenant named with an escape.": "%2e", "A tenant named with a bar.": "a|b", "A tenant named with a colon.": "a:b", "A tenant named with NUL.": "a\x00b",
		"A tenant named in mixed case.": "Acme", "A tenant named in Unicode.": "\u0430cme", "A tenant named with a slash.": "a/b", "A tenant named as the placeholder.": "{tenant}",
		"A tenant named with a hyphen at the end.": "acme-", "A tenant named with 64 bytes.": strings.Repeat("a", 64),
	} {
		no("P4", "admit", comment, unavailable, -1, edit(func(d object) {
			d["tenants"].(object)[name] = object{"uid": "u3"} //nolint:errcheck // it is one
		}))
	}
	yes("P4", "admit", "A tenant named with digits.", allowed("gateway"), edit(func(d object) {
		d["tenants"].(object)["00"] = object{"uid": "u3"} //nolint:errcheck // it is one
	}))
	yes("P4", "originate", "The tenant that the SPIFFE ID names.", allowed("runner"), func(in object) {
		signed(in, "ns/tenant-acme/sa/7")
		claiming(in, unvouched)
	})
	for comment, name := range map[string]string{
		"A SPIFFE ID that names a tenant in upper case.": "ACME", "A SPIFFE ID that names a tenant of one byte.": "0", "A SPIFFE ID that names a tenant with a dot.": "a.b",
		"A SPIFFE ID that names a tenant of dots.": "..", "A SPIFFE ID that names no tenant.": "", "A SPIFFE ID that names a tenant with a hyphen first.": "-acme",
		"A SPIFFE ID that names a tenant of 64 bytes.": strings.Repeat("a", 64),
	} {
		no("P4", "originate", comment, "WORKLOAD_UNKNOWN", 0, func(in object) {
			signed(in, "ns/tenant-"+name+"/sa/7")
			claiming(in, unvouched)
		})
	}
	no("P4", "originate", "A SPIFFE ID that names a tenant which is not listed.", "TENANT_NOT_BOUND", 0, func(in object) {
		signed(in, "ns/tenant-initech/sa/7")
		claiming(in, func(c *pb.Claims) { unvouched(c); c.Tctx.Tenant = "initech" })
	})
}

// policyConditions: conditions that hold, fail, or ask for what is absent.
func policyConditions(yes allow, no deny, allowed func(...string) object) {
	calling := func(name string, change func(*pb.Claims), by ...string) func(object) {
		return func(in object) {
			in["method"] = "/orders.v1.Orders/" + name
			signed(in, append([]string{"gateway"}, by...)...)
			if change != nil {
				claiming(in, change)
			}
		}
	}
	department := func(name string) func(*pb.Claims) {
		return func(c *pb.Claims) { c.Tctx.Attributes = []*pb.Attribute{{Name: "department", Value: name}} }
	}
	agent := func(c *pb.Claims) {
		c.Rctx = &pb.RequestContext{Attributes: []*pb.Attribute{{Name: "agent", Value: "cli"}}}
	}
	for _, c := range []struct {
		comment, name string
		change        func(*pb.Claims)
	}{
		{"A tier that the tenant has.", "WhenTier", nil},
		{"A region that the tenant has.", "WhenRegion", nil},
		{"A classification that the tenant has.", "WhenTenant", nil},
		{"An attribute that the claims have.", "WhenDepartment", department("sales")},
		{"A request's attribute that the claims have.", "WhenAgent", agent},
		{"A call by one hop.", "WhenDirect", nil},
		{"A call that came the right way.", "WhenOrigin", nil},
	} {
		yes("P5", "decide", c.comment, allowed("gateway"), calling(c.name, c.change))
	}
	unmet := func(comment, name string, change func(*pb.Claims)) {
		no("P5", "decide", comment, "CONDITION_NOT_MET", -1, calling(name, change))
	}
	unmet("A tier that the tenant lacks.", "WhenTier", forGlobex)
	unmet("A region that the tenant lacks.", "WhenRegion", forGlobex)
	unmet("A classification that the tenant lacks.", "WhenTenant", forGlobex)
	unmet("An attribute that the claims lack.", "WhenDepartment", nil)
	unmet("An attribute that is another.", "WhenDepartment", department("hr"))
	unmet("A request's attribute that the claims lack, turned around.", "WhenAgent", nil)
	unmet("A division by zero.", "WhenDivided", nil)
	unmet("An overflow.", "WhenOverflow", nil)
	unmet("A text that is no number.", "WhenNumber", nil)
	unmet("Types that only show when it runs.", "WhenDynamic", nil)
	unmet("A scope that is not in force.", "WhenScope", nil)
	unmet("A hop that there is none of.", "WhenSecond", nil)
	no("P5", "decide", "A scope that the claims had and a hop narrowed away.", "CONDITION_NOT_MET", -1, func(in object) {
		calling("WhenScope", func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.write"} })(in)
		in["scopes"] = []string{"orders.read"}
	})
	no("P5", "decide", "An issuer that the claims lack.", "CONDITION_NOT_MET", -1, func(in object) {
		in["policy"].(object)["workloads"].([]object)[3]["calls"] = []string{"/orders.v1.Orders/*"} //nolint:errcheck // it is pay
		in["method"] = "/orders.v1.Orders/WhenIssuer"
		signed(in, "service/pay")
		claiming(in, unvouched)
	})
	no("P5", "decide", "A second too late.", "CONDITION_NOT_MET", -1, func(in object) {
		calling("WhenEarly", nil)(in)
		in["now"] = noon.Add(time.Second).Unix()
	})
	for comment, when := range map[string]string{
		"A condition that goes through scopes three times.":   `claims.scope.exists(a, claims.scope.exists(b, a + b in claims.scope))`,
		"A condition that doubles a text.":                    "claims.sub" + strings.Repeat(" + claims.sub", 3) + ` in claims.scope.map(a, a + a).map(a, a + a).map(a, a + a)`,
		"A condition with a regular expression.":              `claims.sub.matches("(a+)+$")`,
		"A condition about a variable that there is none of.": `claims.user == "alice"`,
		"A condition that is no boolean.":                     `claims.sub`,
		"A condition that is no expression.":                  `claims.sub ==`,
		"A condition that compares a number with a text.":     `claims.classification == "2"`,
	} {
		no("P5", "decide", comment, unavailable, -1, edit(func(doc object) {
			appended(doc, "methods", object{"match": "/x.v1.X/*", "when": when})
		}))
	}
}

// policyBindings: who may act for whom.
func policyBindings(yes allow, no deny, allowed func(...string) object) {
	own := func(names ...string) func(object) {
		return func(in object) { signed(in, names...); claiming(in, unvouched) }
	}
	yes("", "decide", "By way of another workload.", allowed("gateway", "orders"), func(in object) {
		in["method"] = "/inventory.v1.Inventory/Get"
		signed(in, "gateway", "orders")
	})
	yes("I3", "decide", "A workload whose name has a dot.", allowed("dotted"), own("a.b"))
	yes("I3", "decide", "Any path of a trust domain.", allowed("partner"), own("spiffe://partner.example/x/y"))
	yes("I3", "decide", "A tenant of a set.", allowed("gold"), own("gold"))
	for _, m := range []struct {
		comment, id string
		hop         int
	}{
		{"A longer last segment.", "service/payroll", 0},
		{"A shorter last segment.", "service/pa", 0},
		{"A segment more.", "service/pay/x", 0},
		{"A segment less.", "service", 0},
		{"Another first segment.", "services/pay", 0},
		{"A dot is not any character.", "axb", 0},
		{"A star does not cross segments.", "batch/7/8", 0},
		{"A star is a segment.", "batch", 0},
		{"Two stars are one segment at least.", "spiffe://partner.example", 0},
		{"The path in a trust domain that does not have it.", "spiffe://mute.example/service/pay", 0},
		{"The path in a trust domain that is not listed.", "spiffe://evil.example/service/pay", 0},
		{"A trust domain whose name is longer.", "spiffe://prod.example.evil.example/service/pay", 0},
	} {
		no("I3", "decide", m.comment, "WORKLOAD_UNKNOWN", m.hop, own(m.id))
	}
	no("H4", "decide", "A workload on the path that is denied.", "WORKLOAD_DENIED", 1, func(in object) { signed(in, "gateway", "batch/old-7", "pay") })
	no("H4", "decide", "A federated trust domain on the path, outside its tenants.", "TENANT_NOT_BOUND", 1, func(in object) {
		signed(in, "gateway", "spiffe://partner.example/x")
		claiming(in, forGlobex)
	})
	no("H4", "decide", "A tenant that is not of the set.", "TENANT_NOT_BOUND", 0, func(in object) {
		signed(in, "gold")
		claiming(in, func(c *pb.Claims) { unvouched(c); forGlobex(c) })
	})
	no("H4", "decide", "A trust domain without tenants.", "TENANT_NOT_BOUND", 1, func(in object) {
		callers := entry(in["policy"].(object), "methods", "match", "/orders.v1.Orders/*") //nolint:errcheck // it is one
		callers["callers"] = append(callers["callers"].([]string), "mute")                 //nolint:errcheck // it is one
		signed(in, "gateway", "spiffe://mute.example/a")
	})
	no("H4", "decide", "Nobody signed.", "CONTEXT_MISSING", -1, func(in object) { in["path"] = []object{} })
	no("H4", "decide", "Seven signed.", "CHAIN_TOO_LONG", -1, func(in object) {
		signed(in, "gateway", "gateway", "gateway", "gateway", "gateway", "gateway", "gateway")
	})
}

// policyMethods: who may call what.
func policyMethods(yes allow, no deny, allowed func(...string) object) {
	to := func(method string, names ...string) func(object) {
		return func(in object) {
			in["method"] = method
			if len(names) > 0 {
				signed(in, names...)
			}
		}
	}
	exempt := func(names ...string) object { return object{"workloads": append([]string{}, names...), "exempt": true} }
	const health = "/grpc.health.v1.Health/Check"
	yes("M5", "covers", "An exempt method is covered.", exempt(), to(health))
	yes("M5", "admit", "An exempt method for a workload without an entry.", exempt(), to(health, "stranger"))
	yes("M5", "call", "An exempt method that is not among the calls.", exempt("orders"), to(health, "orders"))
	for comment, method := range map[string]string{
		"A service that no rule covers.":        "/stock.v1.Stock/Get",
		"A service whose name is longer.":       "/orders.v1.Orders2/List",
		"A service whose name is shorter.":      "/orders.v1.Order/List",
		"A service of another version.":         "/orders.v2.Orders/List",
		"Reflection, which is listed nowhere.":  "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"A service of an exempt one's package.": "/grpc.health.v1.Other/Check",
	} {
		no("M5", "covers", comment, "METHOD_NOT_COVERED", -1, to(method))
	}
	for comment, method := range map[string]string{
		"No slash.": "orders.v1.Orders/List", "Two slashes.": "//orders.v1.Orders/List", "An escaped slash.": "/orders.v1.Orders%2FList", "A fragment.": "/orders.v1.Orders/List#",
		"A query.": "/orders.v1.Orders/List?", "A pattern for a method.": "/orders.v1.Orders/*", "An empty method.": "", "A dash for a method.": "-",
	} {
		no("M4", "admit", comment, "METHOD_NOT_COVERED", -1, to(method))
	}
	no("M5", "admit", "An exempt method, for a trust domain that is not listed.", "WORKLOAD_UNKNOWN", -1, to(health, "spiffe://evil.example/a"))
	no("M5", "admit", "An exempt method, for who is denied.", "WORKLOAD_DENIED", -1, to(health, "batch/old-7"))
	no("M5", "admit", "A rule without callers.", "CALLER_NOT_ALLOWED", -1, to("/lonely.v1.Lonely/Cry"))
	no("M5", "admit", "A rule with an empty list of callers.", "CALLER_NOT_ALLOWED", -1, to("/orders.v1.Orders/Nobody"))
	no("H4", "admit", "Not among the callers, though its calls have it.", "CALLER_NOT_ALLOWED", -1, to("/orders.v1.Orders/List", "spiffe://mute.example/a"))
	no("H4", "admit", "Among the callers, but its calls do not have it.", "CALLER_NOT_ALLOWED", -1, to("/orders.v1.Orders/Export", "service/pay"))
	no("H4", "call", "Not among its calls.", "CALL_NOT_ALLOWED", -1, to("/inventory.v1.Inventory/Get"))
	no("H4", "call", "A caller that no entry matches.", "WORKLOAD_UNKNOWN", -1, to("/orders.v1.Orders/List", "stranger"))
	export := func(change func(*pb.Claims)) func(object) {
		return func(in object) { to("/orders.v1.Orders/Export", "gateway")(in); claiming(in, change) }
	}
	yes("", "decide", "The scope and the classification that the method requires.", allowed("gateway"), export(func(c *pb.Claims) { c.Scope = []string{"orders.export"} }))
	no("H3", "decide", "A scope that was narrowed away.", "SCOPE_MISSING", -1, func(in object) {
		export(func(c *pb.Claims) { c.Scope = []string{"orders.export", "orders.read"} })(in)
		in["scopes"] = []string{"orders.read"}
	})
	no("H3", "decide", "A classification below that of the method.", "CLASSIFICATION_NOT_ALLOWED", -1, export(func(c *pb.Claims) {
		c.Scope, c.Tctx.Classification = []string{"orders.export"}, 1
	}))
}

// policyOriginations: what may be originated.
func policyOriginations(yes allow, no deny, allowed func(...string) object) {
	parent := func(c *pb.Claims) { c.Parent = &pb.Parent{Txn: "t", Statement: randomBytes("parent")} }
	anew := func(self string, change func(*pb.Claims), from ...string) func(object) {
		return func(in object) {
			signed(in, self)
			claiming(in, func(c *pb.Claims) { unvouched(c); change(c) })
			if from != nil {
				in["from"] = from
			}
		}
	}
	yes("T9", "originate", "Anew, from a trust domain that is listed.", allowed("boundary"), anew("boundary", parent, "partner.example"))
	yes("T9", "originate", "Not anew, where it might.", allowed("boundary"), anew("boundary", func(*pb.Claims) {}))
	no("T9", "originate", "Anew, from a trust domain that is not listed.", "ORIGINATION_NOT_ALLOWED", 0, anew("boundary", parent, "prod.example"))
	no("T9", "originate", "Anew, from two trust domains of which one is not listed.", "ORIGINATION_NOT_ALLOWED", 0, anew("boundary", parent, "partner.example", "evil.example"))
	no("T9", "originate", "Anew, where it may only originate.", "ORIGINATION_NOT_ALLOWED", 0, anew("service/pay", parent, "partner.example"))
	no("T9", "originate", "A parent, and nothing that it is derived from.", "ORIGINATION_NOT_ALLOWED", 0, anew("boundary", parent))
	no("T9", "originate", "Derived, and no parent.", "ORIGINATION_NOT_ALLOWED", 0, anew("boundary", func(*pb.Claims) {}, "partner.example"))
	no("T9", "decide", "A parent, where the first signer may not originate anew.", "ORIGINATION_NOT_ALLOWED", 0, func(in object) { claiming(in, parent) })
	for _, m := range []struct {
		comment, reason string
		change          func(*pb.Claims)
	}{
		{"Another issuer.", "ISSUER_NOT_ALLOWED", func(c *pb.Claims) { c.Iss = "https://evil.example" }},
		{"No issuer.", "ISSUER_NOT_ALLOWED", func(c *pb.Claims) { c.Iss = "" }},
		{"Another subject.", "SUBJECT_NOT_ALLOWED", func(c *pb.Claims) { c.Sub = "admin:alice" }},
		{"A classification that is too high.", "CLASSIFICATION_NOT_ALLOWED", func(c *pb.Claims) { c.Tctx.Classification = 3 }},
		{"A scope of more segments.", "SCOPE_NOT_ALLOWED", func(c *pb.Claims) { c.Scope = []string{"orders.read.all"} }},
		{"A scope that is none of the rest.", "SCOPE_NOT_ALLOWED", func(c *pb.Claims) { c.Scope = []string{"admin"} }},
		{"A life that is too long.", "LIFETIME_NOT_ALLOWED", func(c *pb.Claims) { c.Exp = c.Iat + 601 }},
		{"An elevation.", "ELEVATION_NOT_ALLOWED", func(c *pb.Claims) { c.Elevation = &pb.Elevation{Id: "e"} }},
		{"The uid of a tenant that was deleted.", "TENANT_REPLACED", func(c *pb.Claims) { c.Tctx.TenantUid = "01J90000000000000000000000" }},
	} {
		no("T9", "originate", m.comment, m.reason, 0, func(in object) { claiming(in, m.change) })
	}
	no("T9", "originate", "Who may only forward.", "ORIGINATION_NOT_ALLOWED", 0, func(in object) { signed(in, "orders") })
}

// policyQueues: who may use which queue.
func policyQueues(yes allow, no deny, allowed func(...string) object) {
	queue := func(name string) func(object) { return func(in object) { in["queue"] = name } }
	yes("I3", "publish", "A star in the middle.", allowed("orders"), queue("orders.eu.placed"))
	yes("I3", "publish", "Two stars are the rest.", allowed("orders"), queue("audit.orders.eu.placed"))
	for comment, name := range map[string]string{
		"Two segments where a star is one.": "orders.eu.west.placed", "No segment where a star is one.": "orders.placed", "Nothing where two stars are one segment at least.": "audit",
		"A queue whose first segment is longer.": "audits.orders", "A queue in another case.": "Audit.orders", "A pattern for a queue.": "audit.*",
		"NATS's rest for a queue.": "audit.>", "A queue with an empty segment.": "audit..orders", "No queue.": "",
	} {
		no("I3", "publish", comment, "PUBLISH_NOT_ALLOWED", -1, queue(name))
	}
	no("I3", "consume", "A queue that it may only publish to.", "CONSUME_NOT_ALLOWED", -1, queue("audit.orders"))
	no("I3", "consume", "NATS's rest for a queue to consume.", "CONSUME_NOT_ALLOWED", -1, queue("orders.>"))
	no("I3", "publish", "Who publishes nothing.", "PUBLISH_NOT_ALLOWED", -1, func(in object) { signed(in, "gateway") })
	no("I3", "publish", "Who has no entry.", "WORKLOAD_UNKNOWN", -1, func(in object) { signed(in, "stranger") })
	no("I3", "consume", "Who is denied.", "WORKLOAD_DENIED", -1, func(in object) { signed(in, "batch/old-7") })
}
