package svid

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Status says how a workload's identity is doing, for a health check or a metric.
type Status struct {
	// ID and Hint are those of the SVID in use; zero while there is none.
	ID   spiffeid.ID
	Hint string
	// NotAfter is when that SVID, or an intermediate of its, expires.
	NotAfter time.Time
	// Overdue says that the SVID should have been renewed by now. Agents renew
	// at half of an SVID's life; for their jitter and their intervals they have
	// a tenth of it more, but at least 10 seconds, and at most a quarter of it.
	Overdue bool
	// Expired says that the SVID has expired, so that every call is refused.
	Expired bool
	// Err is why there is no identity, or how the Workload API failed since the
	// last update; nil if all is well.
	Err error
}

// Status returns how the identity is doing now.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := s.snap.Load()
	if snap == nil {
		return Status{Err: s.err}
	}
	own := snap.SVID
	overdue, expires := age(own.Certificates)
	now := time.Now()
	return Status{
		ID: own.ID, Hint: own.Hint, NotAfter: expires,
		Overdue: !now.Before(overdue), Expired: !now.Before(expires),
		Err: s.err,
	}
}

// age returns from when on an SVID's renewal is overdue, and when it expires.
func age(chain []*x509.Certificate) (overdue, expires time.Time) {
	expires = expiry(chain)
	life := expires.Sub(chain[0].NotBefore)
	// SPIRE's agent renews when 45 to 55 % are left, and looks every 5 seconds.
	grace := min(max(life/10, 10*time.Second), life/4)
	return chain[0].NotBefore.Add(life/2 + grace), expires
}

// expiry returns when the first certificate of a chain expires.
func expiry(chain []*x509.Certificate) time.Time {
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return first.NotAfter
}

// stage is how far an SVID has aged.
type stage int

const (
	fresh stage = iota
	overdue
	expired
)

// watchAge logs what the SVID in use has come to, each stage once, and sets the
// alarm for the next; s.mu is held.
func (s *Source) watchAge() {
	if s.alarm != nil {
		s.alarm.Stop()
	}
	snap := s.snap.Load()
	if snap == nil {
		return
	}
	own := snap.SVID
	renew, expires := age(own.Certificates)
	now, next := time.Now(), renew
	if !now.Before(renew) {
		s.raise(own, overdue, "the SVID was not renewed at half of its life; it is used until it expires")
		next = expires
	}
	if !now.Before(expires) {
		s.raise(own, expired, "the SVID has expired; every call is refused")
		return
	}
	s.alarm = time.AfterFunc(time.Until(next), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchAge()
	})
}

// raise logs an alarm about the SVID in use; s.mu is held.
func (s *Source) raise(own *x509svid.SVID, to stage, text string) {
	if s.alarmed >= to {
		return
	}
	s.alarmed = to
	s.log.Error(text, "id", own.ID.String(), "not_after", expiry(own.Certificates), "socket", s.addr, "error", s.err)
}
