package edge

// WaitFetches waits until no fetch of keys runs.
func (v *Verifier) WaitFetches() {
	for _, s := range v.sets {
		s.wg.Wait()
	}
}
