package interceptors

import (
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Domain is the domain of the ErrorInfo in the statuses of the kit.
const Domain = "tenantmesh.dev"

// codeByReason is the one place where a reason becomes a code. A reason that is
// not here is INTERNAL.
var codeByReason = map[tenant.Reason]codes.Code{
	tenant.PeerUnauthenticated: codes.Unauthenticated,
	tenant.SVIDMalformed:       codes.Unauthenticated,
	tenant.SVIDExpired:         codes.Unauthenticated,
	tenant.SVIDUntrusted:       codes.Unauthenticated,
	tenant.ServerUnexpected:    codes.Unauthenticated,
	tenant.KeyUnsupported:      codes.Unauthenticated,

	tenant.MetadataAmbiguous:     codes.InvalidArgument,
	tenant.MetadataTooLarge:      codes.InvalidArgument,
	tenant.ContextMalformed:      codes.InvalidArgument,
	tenant.VersionUnsupported:    codes.InvalidArgument,
	tenant.ChainTooLong:          codes.InvalidArgument,
	tenant.CertificateUnexpected: codes.InvalidArgument,
	tenant.SignatureMalformed:    codes.InvalidArgument,
	tenant.MessageUncheckable:    codes.InvalidArgument,

	tenant.ContextMissing:     codes.Unauthenticated,
	tenant.ChainBroken:        codes.Unauthenticated,
	tenant.KindMismatch:       codes.Unauthenticated,
	tenant.TokenIDRepeated:    codes.Unauthenticated,
	tenant.AudienceMismatch:   codes.Unauthenticated,
	tenant.SignerNotPeer:      codes.Unauthenticated,
	tenant.TargetMismatch:     codes.Unauthenticated,
	tenant.ChannelMismatch:    codes.Unauthenticated,
	tenant.ContextExpired:     codes.Unauthenticated,
	tenant.ContextNotYetValid: codes.Unauthenticated,
	tenant.ContextStale:       codes.Unauthenticated,
	tenant.LifetimeExceeded:   codes.Unauthenticated,
	tenant.TimeReversed:       codes.Unauthenticated,
	tenant.CertificateMissing: codes.Unauthenticated,
	tenant.SignatureInvalid:   codes.Unauthenticated,

	tenant.ContextPresent:           codes.PermissionDenied,
	tenant.ScopeWidened:             codes.PermissionDenied,
	tenant.MethodNarrowed:           codes.PermissionDenied,
	tenant.MethodNotCovered:         codes.PermissionDenied,
	tenant.CallerNotAllowed:         codes.PermissionDenied,
	tenant.CallNotAllowed:           codes.PermissionDenied,
	tenant.WorkloadUnknown:          codes.PermissionDenied,
	tenant.WorkloadDenied:           codes.PermissionDenied,
	tenant.TenantNotBound:           codes.PermissionDenied,
	tenant.TenantReplaced:           codes.PermissionDenied,
	tenant.OriginationNotAllowed:    codes.PermissionDenied,
	tenant.ScopeNotAllowed:          codes.PermissionDenied,
	tenant.IssuerNotAllowed:         codes.PermissionDenied,
	tenant.SubjectNotAllowed:        codes.PermissionDenied,
	tenant.ClassificationNotAllowed: codes.PermissionDenied,
	tenant.LifetimeNotAllowed:       codes.PermissionDenied,
	tenant.ElevationNotAllowed:      codes.PermissionDenied,
	tenant.ScopeMissing:             codes.PermissionDenied,
	tenant.ConditionNotMet:          codes.PermissionDenied,
	tenant.AuthorizerDenied:         codes.PermissionDenied,
	tenant.PublishNotAllowed:        codes.PermissionDenied,
	tenant.ConsumeNotAllowed:        codes.PermissionDenied,
	tenant.TenantMismatch:           codes.NotFound,

	tenant.TokenMissing:      codes.Unauthenticated,
	tenant.TokenTooLarge:     codes.Unauthenticated,
	tenant.TokenMalformed:    codes.Unauthenticated,
	tenant.TokenAlgorithm:    codes.Unauthenticated,
	tenant.TokenHeader:       codes.Unauthenticated,
	tenant.TokenKeyUnknown:   codes.Unauthenticated,
	tenant.TokenSignature:    codes.Unauthenticated,
	tenant.TokenType:         codes.Unauthenticated,
	tenant.TokenIssuer:       codes.Unauthenticated,
	tenant.TokenAudience:     codes.Unauthenticated,
	tenant.TokenExpired:      codes.Unauthenticated,
	tenant.TokenNotYetValid:  codes.Unauthenticated,
	tenant.TokenClaimMissing: codes.Unauthenticated,
	tenant.TokenTenant:       codes.PermissionDenied,

	tenant.IdentityUnavailable: codes.Unavailable,
	tenant.PolicyUnavailable:   codes.Unavailable,
	tenant.AuditUnavailable:    codes.Unavailable,
	tenant.KeysUnavailable:     codes.Unavailable,
	tenant.Internal:            codes.Internal,
}

func codeOf(r tenant.Reason) codes.Code {
	if code, ok := codeByReason[r]; ok {
		return code
	}
	return codes.Internal
}

// unauthenticated is all that a peer without a proven identity is told.
var unauthenticated = status.Error(codes.Unauthenticated, "unauthenticated")

// Status returns the gRPC status for an error of the kit, with the reason in an
// ErrorInfo. An error that is not the kit's is returned as it is.
func Status(err error) error {
	var e *tenant.Error
	if !errors.As(err, &e) {
		return err
	}
	return statusOf(e, "")
}

func statusOf(e *tenant.Error, decisionID string) error {
	code := codeOf(e.Reason)
	if code == codes.NotFound {
		// Whether a record of another tenant exists must not show.
		return status.Error(code, "not found")
	}
	return withInfo(code, e.Reason, decisionID)
}

func withInfo(code codes.Code, reason tenant.Reason, decisionID string) error {
	info := &errdetails.ErrorInfo{Reason: string(reason), Domain: Domain}
	if decisionID != "" {
		info.Metadata = map[string]string{"decision_id": decisionID}
	}
	st := status.New(code, strings.ToLower(strings.ReplaceAll(string(reason), "_", " ")))
	detailed, err := st.WithDetails(info)
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

// credentialStatus turns a status into one that a credential may return: gRPC
// replaces the others, with their details (gRFC A54).
func credentialStatus(err error) error {
	st := status.Convert(err)
	if st.Code() != codes.InvalidArgument && st.Code() != codes.NotFound {
		return err
	}
	p := st.Proto()
	p.Code = int32(codes.Internal)
	return status.ErrorProto(p)
}

// ReasonOf returns the reason in err: in a status that a call returned, or in an
// error of the kit. It returns "" where there is none. A reason in a status is
// the word of the server that answered.
func ReasonOf(err error) tenant.Reason {
	if r := tenant.ReasonOf(err); r != "" {
		return r
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == Domain {
			return tenant.Reason(info.Reason)
		}
	}
	return ""
}
