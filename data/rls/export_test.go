package rls

import "time"

// Proof makes a proof as InTx does.
func (k Key) Proof(expires time.Time, tenant, uid string) string {
	return k.proof(expires, tenant, uid)
}

// Sign makes a proof of any text.
func (k Key) Sign(text string) string { return k.sign([]byte(text)) }

// At returns c with a clock.
func (c Config) At(now func() time.Time) Config {
	c.now = now
	return c
}

// ProveEvery is how often a pool asks whether its proofs are accepted.
const ProveEvery = proveEvery
