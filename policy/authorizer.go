package policy

import "context"

// Authorizer decides about calls that the policy allows: both must allow.
// What it is told was verified. It may be called concurrently, also again for
// an open stream, and must not keep or change c.
type Authorizer interface {
	// Authorize returns nil to allow the call. An error denies it, with the
	// reason of the [*tenant.Error] in it, or [tenant.AuthorizerDenied].
	Authorize(ctx context.Context, c *Call) error
}
