package main

import "github.com/tenantmesh/tenantmesh/internal/vectors"

func slotVectors() []vectors.Vector {
	type list = []any
	in := func(offer string, calls ...list) object { return object{"offer": offer, "calls": calls} }
	call := func(values ...any) list { return values }
	const offer = "12 10000"
	much := func(before string, n int) list { return list{list{before, 1}, list{"A", n}} }

	named := base("named", "A slot that the call before filled.", in(offer, call("=3:CgIKAA"), call("=3")), object{"hops": "CgIKAA"})
	out := []vectors.Vector{named}
	accept := func(lines, comment string, ok, input object) {
		out = append(out, derived(lines, comment, named, input, ok, "", -1))
	}
	both := object{"hops": "CgIKAA", "certs": "CgIK"}
	accept("", "Values without slots.", both, in(offer, call("CgIKAA", "CgIK")))
	accept("", "Values without slots, where none are offered.", both, in("", call("CgIKAA", "CgIK")))
	accept("", "A slot is filled, and stands for its text at once.", both, in(offer, call("=0:CgIKAA", "=11:CgIK")))
	accept("", "Both keys name slots.", both, in(offer, call("=0:CgIKAA", "=11:CgIK"), call("=0", "=11")))
	accept("", "A slot is for either key.", object{"hops": "CgIK", "certs": "CgIKAA"}, in(offer, call("=0:CgIKAA", "=11:CgIK"), call("=11", "=0")))
	accept("", "Hops fill what the certificates of the same call name.", object{"hops": "CgIKAA", "certs": "CgIKAA"}, in(offer, call("=0:CgIKAA", "=0")))
	accept("", "A slot that was filled anew.", object{"hops": "CgIK"}, in(offer, call("=0:CgIKAA"), call("=0:CgIK"), call("=0")))
	accept("", "A slot named twice.", object{"hops": "CgIKAA"}, in(offer, call("=3:CgIKAA"), call("=3"), call("=3")))
	accept("H8", "As many bytes as offered.", object{"hops": list{list{"A", 4000}}},
		in(offer, call(much("=0:", 6000)), call(much("=1:", 4000)), call("=1")))
	accept("H8", "A shorter text makes room.", object{"hops": list{list{"A", 4001}}},
		in(offer, call(much("=0:", 6000)), call(much("=0:", 5999)), call(much("=1:", 4001))))

	refuse := func(lines, comment, reason string, input object) {
		out = append(out, derived(lines, comment, named, input, nil, reason, -1))
	}
	for _, v := range []struct{ comment, hops string }{
		{"A slot that is empty.", "=4"},
		{"A slot beyond those offered.", "=12"},
		{"A slot beyond those offered is filled.", "=12:CgIKAA"},
		{"No number.", "="},
		{"No number before a text.", "=:CgIKAA"},
		{"A number with a leading zero.", "=03"},
		{"A number with a sign.", "=+3"},
		{"A negative number.", "=-3"},
		{"A number with a space.", "= 3"},
		{"A number in hexadecimal.", "=0x3"},
		{"A number that overflows.", "=18446744073709551619"},
		{"A slot is filled with nothing.", "=3:"},
		{"A word in place of a number.", "=three"},
	} {
		refuse("H7", v.comment, "CONTEXT_MALFORMED", in(offer, call("=3:CgIKAA"), call(v.hops)))
	}
	refuse("H7", "A slot of the certificates that is empty.", "CONTEXT_MALFORMED", in(offer, call("=3:CgIKAA"), call("CgIKAA", "=4")))
	refuse("H7", "Certificates fill what the hops of the same call name.", "CONTEXT_MALFORMED", in(offer, call("=3:CgIKAA"), call("=4", "=4:CgIKAA")))
	refuse("H1", "A slot is named on a connection that did not fill it.", "CONTEXT_MALFORMED", in(offer, call("=3")))
	refuse("H1", "A slot is filled where none are offered.", "CONTEXT_MALFORMED", in("", call("=3:CgIKAA")))
	refuse("H8", "A byte more than offered.", "CONTEXT_MALFORMED", in(offer, call(much("=0:", 6000)), call(much("=1:", 4001))))
	refuse("H8", "What slots stand for is over budget together.", "METADATA_TOO_LARGE", in(offer, call(much("=0:", 4000)), call("=0", "=0")))
	refuse("H8", "What fills a slot is over budget.", "METADATA_TOO_LARGE", in(offer, call(much("=0:", 7169))))
	for comment, offer := range map[string]string{
		"An offer with a leading zero is none.": "012 10000", "An offer of one number is none.": "12", "An offer of too many slots is none.": "4097 10000",
		"An offer of too many bytes is none.": "12 16777217", "An offer of no bytes is none.": "12 0", "An offer with two spaces is none.": "12  10000",
	} {
		refuse("H7", comment, "CONTEXT_MALFORMED", in(offer, call("=3:CgIKAA")))
	}
	return out
}
