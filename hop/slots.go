package hop

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// SlotsKey is the key of the response header in which a server offers slots to
// the client of a connection: numbered places for texts that the client presents
// again and again (SPEC.md, section 3.1).
const SlotsKey = "tenantmesh-slots"

// Offer is how many slots a server keeps for a connection, and for how many
// bytes of text. The zero Offer is none.
type Offer struct{ Slots, Bytes int }

// The most of an offer that a client makes use of.
const (
	MaxSlots     = 4096
	MaxSlotBytes = 16 << 20
)

// String returns the value of the header.
func (o Offer) String() string { return fmt.Sprintf("%d %d", o.Slots, o.Bytes) }

// ParseOffer reads the values of the header. What is no offer, or one over
// [MaxSlots] or [MaxSlotBytes], is none: slots are never needed.
func ParseOffer(values []string) Offer {
	if len(values) != 1 {
		return Offer{}
	}
	var o Offer
	slots, bytes, _ := strings.Cut(values[0], " ")
	if n, ok := parseNumber(slots); ok && n <= MaxSlots {
		o.Slots = n
	}
	if n, ok := parseNumber(bytes); ok && n <= MaxSlotBytes {
		o.Bytes = n
	}
	if o.Slots == 0 || o.Bytes == 0 {
		return Offer{}
	}
	return o
}

// parseNumber reads a decimal number in its one form.
func parseNumber(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == s
}

// slotMark begins a value that names a slot, alone or with the text that it is
// filled with. Neither mark is of the text's alphabet.
const (
	slotMark = "="
	fillMark = ":"
)

// Slots are those that a server offered on a connection. They are safe for
// concurrent use, and values mean what they say only in the order in which the
// connection brought them.
type Slots struct {
	offer Offer
	mu    sync.Mutex
	texts map[int]string
	bytes int
}

// NewSlots returns slots of an offer, all empty.
func NewSlots(o Offer) *Slots { return &Slots{offer: o, texts: map[int]string{}} }

// Resolve fills slots and returns the texts that the values stand for. A nil
// Slots has none. It fails with [tenant.ContextMalformed] for a slot that is
// not offered or empty, or for a text that has no room, and with
// [tenant.MetadataTooLarge] if the texts are over [MaxMetadata].
func (s *Slots) Resolve(m Metadata) (Metadata, error) {
	if !strings.HasPrefix(m.Hops, slotMark) && !strings.HasPrefix(m.Certs, slotMark) {
		return m, nil
	}
	if s == nil {
		return Metadata{}, malformed("a slot, and none are offered")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if m.Hops, err = s.text(m.Hops); err != nil {
		return Metadata{}, err
	}
	if m.Certs, err = s.text(m.Certs); err != nil {
		return Metadata{}, err
	}
	return m, m.checkSize()
}

func (s *Slots) text(value string) (string, error) {
	named, ok := strings.CutPrefix(value, slotMark)
	if !ok {
		return value, nil
	}
	number, text, fill := strings.Cut(named, fillMark)
	n, ok := parseNumber(number)
	if !ok || n >= s.offer.Slots {
		return "", malformed("%q is no slot that is offered", number)
	}
	if !fill {
		if text, ok = s.texts[n]; !ok {
			return "", malformed("slot %d is empty", n)
		}
		return text, nil
	}
	more := len(text) - len(s.texts[n])
	if text == "" || s.bytes+more > s.offer.Bytes {
		return "", malformed("slot %d has no room for %d bytes", n, len(text))
	}
	s.bytes += more
	s.texts[n] = text
	return text, nil
}

// Filler is a client's view of the slots of a connection. The client refers to
// a slot only once the call that filled it was answered, and fills one anew
// only when no call is under way that refers to it: so the server never misses.
// It is safe for concurrent use.
type Filler struct {
	offer  Offer
	mu     sync.Mutex
	byText map[string]*Slot
	free   []*Slot // in no use: what they hold is not known, or not wanted
	made   int
	bytes  int // that the server may hold in all
}

// Slot is one slot of a [Filler].
type Slot struct {
	ref   string // the value that names it
	text  string
	known bool // the server holds text
	held  int  // bytes that the server may hold in it
	calls int  // under way that name it
}

// NewFiller returns the client's view of slots that a server offered.
func NewFiller(o Offer) *Filler { return &Filler{offer: o, byText: map[string]*Slot{}} }

// Value returns what to send for a text, and the slot that it names, for which
// [Filler.Done] must be called; nil if it names none. A nil Filler has no slots.
func (f *Filler) Value(text string) (string, *Slot) {
	if f == nil || text == "" {
		return text, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.byText[text]; s != nil {
		if !s.known {
			return text, nil // its filling is under way
		}
		s.calls++
		return s.ref, s
	}
	s := f.place(len(text))
	if s == nil {
		return text, nil
	}
	s.text, s.calls = text, 1
	f.byText[text] = s
	return s.ref + fillMark + text, s
}

// Done says that a call is over for which Value was asked: answered, if the
// server answered it with success.
func (f *Filler) Done(s *Slot, answered bool) {
	if s == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.calls--
	switch {
	case s.known:
	case answered:
		s.known = true
		f.bytes += len(s.text) - s.held
		s.held = len(s.text)
	default: // nobody knows what it holds
		delete(f.byText, s.text)
		f.free = append(f.free, s)
	}
}

// place returns a slot with room for n bytes that no call names, or nil.
func (f *Filler) place(n int) *Slot {
	s := f.vacant(n)
	if s == nil {
		return nil
	}
	grow := max(n-s.held, 0)
	if f.bytes+grow > f.offer.Bytes {
		f.free = append(f.free, s)
		return nil
	}
	f.bytes += grow
	s.held += grow
	s.known = false
	return s
}

// maxTries bounds the search for a slot that can be vacated.
const maxTries = 8

// vacant returns a slot that is free, a new one if there is room for n bytes
// more, or one of those that no call names.
func (f *Filler) vacant(n int) *Slot {
	if last := len(f.free) - 1; last >= 0 {
		s := f.free[last]
		f.free = f.free[:last]
		return s
	}
	if f.made < f.offer.Slots && f.bytes+n <= f.offer.Bytes {
		f.made++
		return &Slot{ref: slotMark + strconv.Itoa(f.made-1)}
	}
	tries := 0
	for text, s := range f.byText { // in no order
		if s.calls == 0 {
			delete(f.byText, text)
			return s
		}
		if tries++; tries == maxTries {
			break
		}
	}
	return nil
}
