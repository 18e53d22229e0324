package devdomain

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/protobuf/types/known/structpb"
)

// jwtTTL is how long JWT-SVIDs live, as with SPIRE.
const jwtTTL = 5 * time.Minute

// jwtAuthority is the key that signs JWT-SVIDs.
type jwtAuthority struct {
	id  string // the kid of its tokens
	key crypto.Signer
	alg jose.SignatureAlgorithm
}

func newJWTAuthority(kt KeyType) (jwtAuthority, error) {
	key, err := kt.generate()
	if err != nil {
		return jwtAuthority{}, err
	}
	alg := map[KeyType]jose.SignatureAlgorithm{ECP256: jose.ES256, ECP384: jose.ES384, RSA2048: jose.RS256}[kt]
	return jwtAuthority{id: rand.Text(), key: key, alg: alg}, nil
}

// issue signs a JWT-SVID (JWT-SVID, sections 2 and 3).
func (a jwtAuthority) issue(id spiffeid.ID, audience []string, now time.Time) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: a.alg, Key: jose.JSONWebKey{Key: a.key, KeyID: a.id}},
		new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  id.String(),
		Audience: audience,
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(jwtTTL)),
	}).Serialize()
}

// validate checks a JWT-SVID as go-spiffe does.
func validate(token string, bundles jwtbundle.Source, audience string) (spiffeid.ID, *structpb.Struct, error) {
	s, err := jwtsvid.ParseAndValidate(token, bundles, []string{audience})
	if err != nil {
		return spiffeid.ID{}, nil, err
	}
	claims, err := structpb.NewStruct(s.Claims)
	if err != nil {
		return spiffeid.ID{}, nil, fmt.Errorf("the claims: %w", err)
	}
	return s.ID, claims, nil
}
