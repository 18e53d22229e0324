package hop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestParseOffer(t *testing.T) {
	for value, want := range map[string]Offer{
		"1 1": {1, 1}, "4096 16777216": {4096, 16 << 20}, "1024 1048576": {1024, 1 << 20},
		"": {}, "1": {}, "1 ": {}, " 1": {}, "0 1": {}, "1 0": {}, "-1 1": {}, "1 -1": {}, "01 1": {}, "1 +1": {}, "1  1": {}, "1 1 1": {},
		"4097 1": {}, "1 16777217": {}, "99999999999999999999 1": {},
	} {
		if got := ParseOffer([]string{value}); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
	if o := (Offer{7, 9}); ParseOffer([]string{o.String()}) != o {
		t.Errorf("%q is not itself", o)
	}
	for _, values := range [][]string{nil, {"1 1", "1 1"}} {
		if o := ParseOffer(values); o != (Offer{}) {
			t.Errorf("%q is %v", values, o)
		}
	}
}

// TestSlots: what a server makes of values, one after the other on a connection.
func TestSlots(t *testing.T) {
	half, all := strings.Repeat("h", MaxMetadata/2+1), strings.Repeat("a", MaxMetadata)
	offer := Offer{Slots: 12, Bytes: 3 * MaxMetadata}
	type step struct {
		hops, certs string // received
		text, more  string // what they stand for
		want        tenant.Reason
	}
	for name, steps := range map[string][]step{
		"whole":                             {{"abc", "def", "abc", "def", ""}},
		"filled and named":                  {{"=0:abc", "", "abc", "", ""}, {"=0", "", "abc", "", ""}, {"=0", "=0", "abc", "abc", ""}},
		"both keys":                         {{"=11:abc", "=3:def", "abc", "def", ""}, {"ghi", "=3", "ghi", "def", ""}, {"=3", "=11", "def", "abc", ""}},
		"one fills what the other names":    {{"=1:abc", "=1", "abc", "abc", ""}},
		"filled anew":                       {{"=1:abc", "", "abc", "", ""}, {"=1:xyz", "", "xyz", "", ""}, {"=1", "", "xyz", "", ""}},
		"H7 an empty slot":                  {{"=1", "", "", "", tenant.ContextMalformed}},
		"H7 an empty slot for certificates": {{"abc", "=1", "", "", tenant.ContextMalformed}},
		"H7 a slot that is not offered":     {{"=12:abc", "", "", "", tenant.ContextMalformed}},
		"H7 no number":                      {{"=", "", "", "", tenant.ContextMalformed}, {"=:abc", "", "", "", tenant.ContextMalformed}, {"=x", "", "", "", tenant.ContextMalformed}},
		"H7 a number in another form":       {{"=01:abc", "", "", "", tenant.ContextMalformed}, {"=+1:abc", "", "", "", tenant.ContextMalformed}, {"=-1:abc", "", "", "", tenant.ContextMalformed}, {"= 1:abc", "", "", "", tenant.ContextMalformed}},
		"H7 filled with nothing":            {{"=1:", "", "", "", tenant.ContextMalformed}, {"=1", "", "", "", tenant.ContextMalformed}},
		"H8 more than fits":                 {{"=0:" + all, "", all, "", ""}, {"=1:" + all, "", all, "", ""}, {"=2:" + all, "", all, "", ""}, {"=3:a", "", "", "", tenant.ContextMalformed}, {"=2:b", "", "b", "", ""}, {"=3:a", "", "a", "", ""}},
		"H8 more than a call may bring":     {{"=0:" + half, "", half, "", ""}, {"=0", "=0", "", "", tenant.MetadataTooLarge}, {"=1:" + all + "a", "", "", "", tenant.MetadataTooLarge}},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSlots(offer)
			for i, step := range steps {
				m, err := s.Resolve(Metadata{Hops: step.hops, Certs: step.certs})
				if tenant.ReasonOf(err) != step.want || m != (Metadata{Hops: step.text, Certs: step.more}) && err == nil {
					t.Errorf("step %d: %v, %v", i, m, err)
				}
			}
		})
	}
	t.Run("H7 none are offered", func(t *testing.T) {
		var s *Slots
		for _, m := range []Metadata{{Hops: "=0:abc"}, {Hops: "=0"}, {Hops: "abc", Certs: "=0:abc"}} {
			if _, err := s.Resolve(m); tenant.ReasonOf(err) != tenant.ContextMalformed {
				t.Errorf("%q: %v", m.Hops, err)
			}
		}
		if m, err := s.Resolve(Metadata{Hops: "abc"}); m.Hops != "abc" || err != nil {
			t.Errorf("%v, %v", m, err)
		}
	})
}

// TestFiller: whatever calls end when, and however, a server never misses, and
// takes every value for the text that it stands for.
func TestFiller(t *testing.T) {
	named := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		offer := Offer{Slots: 1 + rng.IntN(6), Bytes: 20 + rng.IntN(200)}
		f, s := NewFiller(offer), NewSlots(offer)
		texts := make([]string, 1+rng.IntN(12))
		for i := range texts {
			texts[i] = fmt.Sprintf("%d-%s", i, strings.Repeat("x", rng.IntN(40)))
		}
		type call struct {
			text, value string
			slot        *Slot
			sent, read  bool
		}
		var calls, wire []*call
		for range 2000 {
			switch rng.IntN(4) {
			case 0: // a call begins
				c := &call{text: texts[rng.IntN(len(texts))]}
				c.value, c.slot = f.Value(c.text)
				calls = append(calls, c)
			case 1: // its headers go out
				for _, c := range calls {
					if !c.sent && rng.IntN(2) == 0 {
						c.sent = true
						wire = append(wire, c)
						break
					}
				}
			case 2: // the server reads, in order
				if len(wire) > 0 {
					c := wire[0]
					wire = wire[1:]
					c.read = true
					if m, err := s.Resolve(Metadata{Hops: c.value}); err != nil || m.Hops != c.text {
						t.Fatalf("H9 seed %d: %q stands for %q, not %q: %v", seed, c.value, m.Hops, c.text, err)
					}
					if c.slot != nil && !strings.Contains(c.value, fillMark) {
						named++
					}
				}
			case 3: // a call ends, answered or given up
				if len(calls) > 0 {
					i := rng.IntN(len(calls))
					f.Done(calls[i].slot, calls[i].read && rng.IntN(4) > 0)
					calls = slices.Delete(calls, i, i+1)
				}
			}
		}
		for _, c := range calls {
			f.Done(c.slot, false)
		}
		held, longest := 0, 0
		for _, text := range texts {
			longest = max(longest, len(text))
		}
		for _, slot := range slices.AppendSeq(slices.Clone(f.free), maps.Values(f.byText)) {
			held += slot.held
			if slot.calls != 0 || slot.held > longest || slot.known && slot.held != len(slot.text) {
				t.Errorf("seed %d: at the end a slot is %+v", seed, slot)
			}
		}
		if f.bytes != held || held > offer.Bytes {
			t.Errorf("seed %d: %d bytes are counted, the slots may hold %d of %d", seed, f.bytes, held, offer.Bytes)
		}
	}
	if named < 1000 {
		t.Errorf("only %d values named a slot alone", named)
	}
}

func TestFillerKeepsWithinOffer(t *testing.T) {
	f := NewFiller(Offer{Slots: 2, Bytes: 10})
	use := func(text, want string) *Slot {
		t.Helper()
		got, slot := f.Value(text)
		if got != want {
			t.Errorf("%q is sent as %q, want %q", text, got, want)
		}
		return slot
	}
	if use("", "") != nil {
		t.Error("nothing names a slot")
	}
	a := use("aaaa", "=0:aaaa")
	use("aaaa", "aaaa") // its filling is under way
	use("bbbbbbb", "bbbbbbb")
	f.Done(a, true)
	a = use("aaaa", "=0")
	b := use("bbbb", "=1:bbbb")
	use("cccc", "cccc") // calls name both
	f.Done(b, true)
	f.Done(a, true)
	use("ddddddddddd", "ddddddddddd") // more than fits, and what it vacated is free
	if _, slot := f.Value("e"); slot == nil || len(f.free) != 0 {
		t.Errorf("%v is used, %d slots are free", slot, len(f.free))
	}
	f = NewFiller(Offer{Slots: 20, Bytes: 20})
	for i, text := range []string{"aaaaaaaaaa", "bbbbbbbbbb"} {
		f.Done(use(text, fmt.Sprintf("=%d:%s", i, text)), true)
	}
	if v, slot := f.Value("cccccccccc"); slot == nil || len(f.byText) != 2 {
		t.Errorf("without bytes for another slot, %q is sent", v)
	}
	f = NewFiller(Offer{Slots: 20, Bytes: 20})
	for i := range 20 {
		text := string(rune('a' + i))
		use(text, fmt.Sprintf("=%d:%s", i, text))
	}
	use("z", "z") // calls name all
	// Of few slots the one that is idle is found; of many it may be passed over.
	for slots, all := range map[int]bool{maxTries: true, 10 * maxTries: false} {
		found := 0
		for range 100 {
			f := NewFiller(Offer{Slots: slots, Bytes: 2 * slots})
			for i := range slots {
				if _, s := f.Value(fmt.Sprintf("%02d", i)); i == 0 {
					f.Done(s, true)
				}
			}
			if _, s := f.Value("~"); s != nil {
				found++
			}
		}
		if (found == 100) != all {
			t.Errorf("the idle one of %d slots was found %d times in 100", slots, found)
		}
	}
	var none *Filler
	if v, slot := none.Value("aaaa"); v != "aaaa" || slot != nil {
		t.Errorf("without slots %q is sent", v)
	}
	none.Done(nil, true)
}
