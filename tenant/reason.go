package tenant

import (
	"errors"
	"fmt"
)

// Reason says why something was refused. Reasons are stable: they stand in
// audit events and in the ErrorInfo of a status, and tests and alerts compare
// them. SPEC.md has the table of their meanings and status codes.
type Reason string

// The peer: who is at the other end of the connection.
const (
	// PeerUnauthenticated: the connection was not made by the kit's
	// credentials, or the peer presented no certificate.
	PeerUnauthenticated Reason = "PEER_UNAUTHENTICATED"
	// SVIDMalformed: a certificate is not an X.509-SVID as the SPIFFE
	// X509-SVID standard, sections 2 to 5, has it.
	SVIDMalformed Reason = "SVID_MALFORMED"
	// SVIDExpired: an SVID is not valid at this time: expired, or not yet valid.
	SVIDExpired Reason = "SVID_EXPIRED"
	// SVIDUntrusted: an SVID does not chain to today's bundle of its trust domain.
	SVIDUntrusted Reason = "SVID_UNTRUSTED"
	// ServerUnexpected: the server is not the one that the client expects.
	ServerUnexpected Reason = "SERVER_UNEXPECTED"
	// IdentityUnavailable: the workload's own SVID is missing or has expired.
	IdentityUnavailable Reason = "IDENTITY_UNAVAILABLE"
)

// The metadata and the structure of what it carries.
const (
	// MetadataAmbiguous: a security key stands more than once, under another
	// spelling, as a "-bin" twin, or was set by the application.
	MetadataAmbiguous Reason = "METADATA_AMBIGUOUS"
	// MetadataTooLarge: the security keys exceed their budget.
	MetadataTooLarge Reason = "METADATA_TOO_LARGE"
	// ContextMissing: the method needs a tenant and the call carries none.
	ContextMissing Reason = "CONTEXT_MISSING"
	// ContextMalformed: bytes that are not the one canonical encoding of a
	// hop chain, a statement or its certificates.
	ContextMalformed Reason = "CONTEXT_MALFORMED"
	// ContextPresent: a chain was to be originated where one is already held.
	ContextPresent Reason = "CONTEXT_PRESENT"
	// VersionUnsupported: a statement of an unknown version.
	VersionUnsupported Reason = "VERSION_UNSUPPORTED"
	// ChainTooLong: more hops than the budget of 6.
	ChainTooLong Reason = "CHAIN_TOO_LONG"
	// ChainBroken: index, prev, or claims do not stand where they must.
	ChainBroken Reason = "CHAIN_BROKEN"
	// KindMismatch: a statement of another kind than this place allows.
	KindMismatch Reason = "KIND_MISMATCH"
	// TokenIDRepeated: two statements of a chain have the same jti.
	TokenIDRepeated Reason = "TOKEN_ID_REPEATED"
	// AudienceMismatch: a statement was handed to another workload than the
	// one that uses it.
	AudienceMismatch Reason = "AUDIENCE_MISMATCH"
	// SignerNotPeer: the last hop was signed by another than the TLS peer.
	SignerNotPeer Reason = "SIGNER_NOT_PEER"
	// TargetMismatch: the last hop was made for another method.
	TargetMismatch Reason = "TARGET_MISMATCH"
	// ChannelMismatch: the last hop was made for another connection.
	ChannelMismatch Reason = "CHANNEL_MISMATCH"
	// ContextExpired: a statement or its claims are past exp.
	ContextExpired Reason = "CONTEXT_EXPIRED"
	// ContextNotYetValid: a statement or its claims are issued in the future.
	ContextNotYetValid Reason = "CONTEXT_NOT_YET_VALID"
	// ContextStale: the last hop is older than its freshness.
	ContextStale Reason = "CONTEXT_STALE"
	// LifetimeExceeded: an exp later than that of the claims, of the hop
	// before, or of the signer's certificate.
	LifetimeExceeded Reason = "LIFETIME_EXCEEDED"
	// TimeReversed: a hop issued before the one that it follows.
	TimeReversed Reason = "TIME_REVERSED"
	// ScopeWidened: a narrowing that allows more than the one before it.
	ScopeWidened Reason = "SCOPE_WIDENED"
	// CertificateMissing: a signer's certificates are not among those sent.
	CertificateMissing Reason = "CERTIFICATE_MISSING"
	// CertificateUnexpected: certificates that no hop refers to, out of
	// order, or more than two intermediates.
	CertificateUnexpected Reason = "CERTIFICATE_UNEXPECTED"
	// SignatureMalformed: a signature that is not the one encoding that its
	// signer's key has, or a place in a tree that does not exist.
	SignatureMalformed Reason = "SIGNATURE_MALFORMED"
	// SignatureInvalid: a signature that does not verify.
	SignatureInvalid Reason = "SIGNATURE_INVALID"
	// KeyUnsupported: a signer's key that the profile does not allow.
	KeyUnsupported Reason = "KEY_UNSUPPORTED"
)

// Policy: proven, but not allowed.
const (
	// MethodNotCovered: no rule covers the method. A method that does not
	// exist looks the same.
	MethodNotCovered Reason = "METHOD_NOT_COVERED"
	// CallerNotAllowed: the peer may not call the method.
	CallerNotAllowed Reason = "CALLER_NOT_ALLOWED"
	// CallNotAllowed: this workload may not call the method.
	CallNotAllowed Reason = "CALL_NOT_ALLOWED"
	// WorkloadUnknown: no workload entry, or no trust domain, matches an ID.
	WorkloadUnknown Reason = "WORKLOAD_UNKNOWN"
	// WorkloadDenied: a deny entry matches an ID.
	WorkloadDenied Reason = "WORKLOAD_DENIED"
	// TenantNotBound: a workload on the path may not act for the tenant. A
	// tenant that is not listed looks the same.
	TenantNotBound Reason = "TENANT_NOT_BOUND"
	// TenantReplaced: the claims name another tenant's uid: the tenant was
	// deleted and created again since.
	TenantReplaced Reason = "TENANT_REPLACED"
	// OriginationNotAllowed: the first signer may only forward, or may not
	// originate anew from another chain.
	OriginationNotAllowed Reason = "ORIGINATION_NOT_ALLOWED"
	// ScopeNotAllowed: claims with a scope that the first signer may not originate.
	ScopeNotAllowed Reason = "SCOPE_NOT_ALLOWED"
	// IssuerNotAllowed: claims from an external issuer that the first signer
	// may not originate for.
	IssuerNotAllowed Reason = "ISSUER_NOT_ALLOWED"
	// SubjectNotAllowed: claims about a subject that the first signer may not
	// originate for.
	SubjectNotAllowed Reason = "SUBJECT_NOT_ALLOWED"
	// ClassificationNotAllowed: claims with a classification above that of their
	// first signer, or below that of the method or of a field.
	ClassificationNotAllowed Reason = "CLASSIFICATION_NOT_ALLOWED"
	// LifetimeNotAllowed: claims that live longer than the first signer may
	// let them.
	LifetimeNotAllowed Reason = "LIFETIME_NOT_ALLOWED"
	// ElevationNotAllowed: claims with an elevation that nothing here grants.
	ElevationNotAllowed Reason = "ELEVATION_NOT_ALLOWED"
	// ScopeMissing: the method requires a scope that the context does not hold.
	ScopeMissing Reason = "SCOPE_MISSING"
	// ConditionNotMet: a condition of the method's rules does not hold.
	ConditionNotMet Reason = "CONDITION_NOT_MET"
	// AuthorizerDenied: the policy allows the call, another authorizer does not.
	AuthorizerDenied Reason = "AUTHORIZER_DENIED"
	// PublishNotAllowed: the workload may not publish to the subject or topic.
	PublishNotAllowed Reason = "PUBLISH_NOT_ALLOWED"
	// ConsumeNotAllowed: the workload may not consume from the queue.
	ConsumeNotAllowed Reason = "CONSUME_NOT_ALLOWED"
	// MethodNarrowed: a hop upstream does not let the method be called with
	// its context.
	MethodNarrowed Reason = "METHOD_NARROWED"
	// TenantMismatch: a resource belongs to another tenant than the context's.
	TenantMismatch Reason = "TENANT_MISMATCH"
	// MessageUncheckable: a message that cannot be held to its .proto, such as
	// one with an Any of an unknown type.
	MessageUncheckable Reason = "MESSAGE_UNCHECKABLE"
)

// External tokens at the edge.
const (
	// TokenMissing: the request carries no bearer token (RFC 6750, section 2.1).
	TokenMissing Reason = "TOKEN_MISSING"
	// TokenTooLarge: a token over its size limit.
	TokenTooLarge Reason = "TOKEN_TOO_LARGE"
	// TokenMalformed: not a JWS in compact serialization with strict JSON in
	// it: padding, duplicate or case-folded members, several tokens.
	TokenMalformed Reason = "TOKEN_MALFORMED"
	// TokenAlgorithm: an algorithm outside the issuer's allow-list, or another
	// than its key's.
	TokenAlgorithm Reason = "TOKEN_ALGORITHM"
	// TokenHeader: a header that names or brings keys, or an unknown crit.
	TokenHeader Reason = "TOKEN_HEADER"
	// TokenKeyUnknown: no key of the issuer has the token's kid.
	TokenKeyUnknown Reason = "TOKEN_KEY_UNKNOWN"
	// TokenSignature: the signature does not verify.
	TokenSignature Reason = "TOKEN_SIGNATURE"
	// TokenType: a token of another kind than an issuer is accepted with.
	TokenType Reason = "TOKEN_TYPE"
	// TokenIssuer: an issuer that is not configured.
	TokenIssuer Reason = "TOKEN_ISSUER"
	// TokenAudience: a token for another audience, or for several.
	TokenAudience Reason = "TOKEN_AUDIENCE"
	// TokenExpired: past exp, or older than the longest lifetime accepted.
	TokenExpired Reason = "TOKEN_EXPIRED"
	// TokenNotYetValid: iat or nbf in the future.
	TokenNotYetValid Reason = "TOKEN_NOT_YET_VALID"
	// TokenClaimMissing: a required claim is absent, empty or of another type.
	TokenClaimMissing Reason = "TOKEN_CLAIM_MISSING"
	// TokenTenant: a tenant that the issuer is not accepted for.
	TokenTenant Reason = "TOKEN_TENANT"
	// KeysUnavailable: the issuer's keys cannot be had and the last good ones
	// are past their limit.
	KeysUnavailable Reason = "KEYS_UNAVAILABLE"
)

// The kit's own state.
const (
	// PolicyUnavailable: there is no policy in force.
	PolicyUnavailable Reason = "POLICY_UNAVAILABLE"
	// AuditUnavailable: the decision could not be recorded.
	AuditUnavailable Reason = "AUDIT_UNAVAILABLE"
	// Internal: a fault of the kit itself; it denies.
	Internal Reason = "INTERNAL"
)

// Error is a refusal. Its message is for the operator: what reaches a caller
// is the reason alone, through the interceptors.
type Error struct {
	// Reason is the stable reason.
	Reason Reason
	// Detail says more, for audit and logs; it never holds tokens or keys.
	Detail string
	// Hop is the index of the hop at fault, or -1 where none is.
	Hop int
	// Rule names the policy rule that decided, as file:line, or is empty.
	Rule string
	// Err is the cause, if there is one.
	Err error
}

// Deny returns an [*Error] with the reason and a formatted detail. A %w in the
// format becomes its cause.
func Deny(reason Reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Detail: err.Error(), Hop: -1, Err: errors.Unwrap(err)}
}

// AtHop returns a copy of e that names the hop at fault.
func (e *Error) AtHop(i int) *Error {
	c := *e
	c.Hop = i
	return &c
}

// Error returns the reason and the detail.
func (e *Error) Error() string {
	s := "tenantmesh: " + string(e.Reason)
	if e.Hop >= 0 {
		s += fmt.Sprintf(" (hop %d)", e.Hop)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an [*Error] with the same reason and nothing
// else, so that errors.Is(err, &tenant.Error{Reason: r}) asks for a reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Detail == "" && t.Err == nil
}

// ReasonOf returns the reason in err's chain, or "" where there is none.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}
