package edge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	maxText   = 512  // bytes of any one string that is used
	maxDepth  = 16   // nesting of JSON values in a payload
	maxParams = 64   // JSON values in one header
	maxItems  = 1024 // JSON values in one payload
)

var (
	// headerNames are the header parameters that mean something here.
	headerNames = append([]string{"alg", "kid", "typ"}, refusedHeaders...)
	// refusedHeaders name or bring keys (RFC 7515, sections 4.1.2 to 4.1.8),
	// or change what the rest means (crit; b64, RFC 7797).
	refusedHeaders = []string{"jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64"}
	// claimNames are the claims that mean something with every issuer.
	claimNames = []string{"iss", "sub", "aud", "exp", "iat", "nbf"}
)

// decode takes a token apart: JWS Compact Serialization (RFC 7515, section
// 7.1) in its one canonical encoding.
func decode(token string, limit int) (header, payload []byte, err error) {
	if token == "" {
		return nil, nil, tenant.Deny(tenant.TokenMissing, "no token")
	}
	if len(token) > limit {
		return nil, nil, tenant.Deny(tenant.TokenTooLarge, "%d bytes, more than %d", len(token), limit)
	}
	if strings.Count(token, ".") != 2 {
		return nil, nil, tenant.Deny(tenant.TokenMalformed, "not a JWS in compact serialization")
	}
	var parts [3][]byte
	for i, s := range strings.Split(token, ".") {
		// The decoder skips line breaks, and knows several texts for one
		// value: what does not encode to itself is refused.
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || base64.RawURLEncoding.EncodeToString(b) != s {
			return nil, nil, tenant.Deny(tenant.TokenMalformed, "part %d is not canonical base64url", i)
		}
		parts[i] = b
	}
	return parts[0], parts[1], nil
}

// peekIssuer returns the iss of a payload whose signature is yet to be
// verified. It only chooses the keys: the payload is parsed strictly afterwards.
func peekIssuer(payload []byte) (string, error) {
	var claims struct {
		Issuer string `json:"iss"`
	}
	if deep(payload) || json.Unmarshal(payload, &claims) != nil {
		return "", tenant.Deny(tenant.TokenMalformed, "the payload is not claims in JSON, or nested too deep")
	}
	if claims.Issuer == "" {
		return "", tenant.Deny(tenant.TokenClaimMissing, "iss is absent or empty")
	}
	return claims.Issuer, nil
}

// deep says whether brackets nest deeper than maxDepth, so that encoding/json,
// which lets them nest 10,000 deep, need not find out.
func deep(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++ // what is escaped ends no string
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// members are those of a JSON object, by their exact names.
type members map[string]json.RawMessage

// parseObject parses exactly one JSON object of so many values. At no depth does it hold a name
// twice, and at the top no name that folds to one of names without being it:
// encoding/json would take either.
func parseObject(data []byte, items int, names ...string) (members, error) {
	w := walker{dec: json.NewDecoder(bytes.NewReader(data)), left: items, names: names}
	w.dec.UseNumber()
	if !utf8.Valid(data) {
		return nil, tenant.Deny(tenant.TokenMalformed, "not UTF-8")
	}
	if err := w.value(true); err != nil {
		return nil, err
	}
	var m members
	if err := json.Unmarshal(data, &m); err != nil || m == nil { // also if something follows the object
		return nil, tenant.Deny(tenant.TokenMalformed, "not one JSON object")
	}
	return m, nil
}

type walker struct {
	dec   *json.Decoder
	left  int // values that may still come
	names []string
}

func (w *walker) value(top bool) error {
	if w.left--; w.left < 0 {
		return tenant.Deny(tenant.TokenMalformed, "too many values")
	}
	tok, err := w.dec.Token()
	if err != nil {
		return tenant.Deny(tenant.TokenMalformed, "not JSON")
	}
	var seen map[string]struct{}
	switch tok {
	case json.Delim('{'):
		seen = make(map[string]struct{})
	case json.Delim('['):
	default:
		return nil
	}
	for w.dec.More() {
		if seen != nil {
			if err := w.name(seen, top); err != nil {
				return err
			}
		}
		if err := w.value(false); err != nil {
			return err
		}
	}
	if _, err := w.dec.Token(); err != nil {
		return tenant.Deny(tenant.TokenMalformed, "not JSON")
	}
	return nil
}

func (w *walker) name(seen map[string]struct{}, top bool) error {
	tok, err := w.dec.Token()
	name, ok := tok.(string)
	if err != nil || !ok {
		return tenant.Deny(tenant.TokenMalformed, "not JSON")
	}
	if _, dup := seen[name]; dup {
		return tenant.Deny(tenant.TokenMalformed, "a member stands twice")
	}
	seen[name] = struct{}{}
	if !top {
		return nil
	}
	for _, n := range w.names {
		if name != n && strings.EqualFold(name, n) {
			return tenant.Deny(tenant.TokenMalformed, "a member is spelled like %q and is not it", n)
		}
	}
	return nil
}

// text returns a member that must be a string and not empty.
func (m members) text(name string) (string, error) {
	var s string
	if err := json.Unmarshal(m[name], &s); err != nil || s == "" {
		return "", tenant.Deny(tenant.TokenClaimMissing, "%s is absent, empty or not a string", name)
	}
	if !clean(s) {
		return "", tenant.Deny(tenant.TokenMalformed, "%s is too long or holds characters that cannot stand in it", name)
	}
	return s, nil
}

// clean says whether s has no control characters, and none that encoding/json
// could not decode: two strings that differ there would be the same here.
func clean(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r)
	})
}

// date returns a member that must be a NumericDate (RFC 7519, section 2).
// Fractions of a second are rounded, to the strict side.
func (m members) date(name string, round func(float64) float64) (time.Time, error) {
	const year9999 = 253402300799
	raw := m[name]
	var f float64
	if len(raw) == 0 || raw[0] < '0' || raw[0] > '9' || json.Unmarshal(raw, &f) != nil || f > year9999 {
		return time.Time{}, tenant.Deny(tenant.TokenClaimMissing, "%s is absent or not a date", name)
	}
	return time.Unix(int64(round(f)), 0), nil
}

// audience returns the one aud (RFC 7519, section 4.1.3).
func (m members) audience() (string, error) {
	var list []string
	if json.Unmarshal(m["aud"], &list) != nil {
		return m.text("aud")
	}
	switch {
	case len(list) == 0 || slices.Contains(list, ""):
		return "", tenant.Deny(tenant.TokenClaimMissing, "aud is absent or empty")
	case len(list) > 1:
		return "", tenant.Deny(tenant.TokenAudience, "for %d audiences", len(list))
	}
	return list[0], nil
}

// scopes returns the scopes in the member, sorted, each once.
func (m members) scopes(name string) ([]string, error) {
	raw, ok := m[name]
	if !ok {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return nil, tenant.Deny(tenant.TokenMalformed, "%s is neither a string nor a list of strings", name)
		}
		if s != "" {
			list = strings.Split(s, " ")
		}
	}
	for _, s := range list {
		if !scopeToken(s) {
			return nil, tenant.Deny(tenant.TokenMalformed, "%s holds what is not a scope", name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// scopeToken says whether s is a scope-token (RFC 6749, section 3.3).
func scopeToken(s string) bool {
	return s != "" && len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// mediaType returns typ as it is compared: in lower case and without
// "application/"; empty if it is not ASCII.
func mediaType(typ string) string {
	for i := range len(typ) {
		if typ[i] <= ' ' || typ[i] > '~' {
			return ""
		}
	}
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// The ways to round a date that narrow when a token is valid.
var (
	early = math.Floor
	late  = math.Ceil
)
