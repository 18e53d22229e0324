package svid

// OpenConns returns how many connections the registry holds.
func OpenConns(c *Credentials) int {
	c.conns.mu.RLock()
	defer c.conns.mu.RUnlock()
	return len(c.conns.open)
}

// Diagnose is diagnose.
var Diagnose = diagnose
