package remote

import (
	"context"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// Tokens issues service tokens of the account that calls.
type Tokens interface {
	// ServiceToken returns a new token for one call of a method. It is good for about a
	// minute. The audience is a DID with or without the fragment of a service.
	ServiceToken(ctx context.Context, audience, method string) (string, error)
}

// Signed issues the tokens of an account whose key is at hand, such as that of the
// registry's own did:web. now may be nil: time.Now.
func Signed(did string, key atcrypto.PrivateKeyExportable, now func() time.Time) Tokens {
	if now == nil {
		now = time.Now
	}
	return signed{identity.Identity{DID: did, Key: key}, now}
}

type signed struct {
	id  identity.Identity
	now func() time.Time
}

func (s signed) ServiceToken(_ context.Context, audience, method string) (string, error) {
	return auth.Sign(s.id, audience, method, 0, s.now()) // expires after a minute
}

// OfAccount gets the tokens of an account from its PDS.
func OfAccount(account *pds.Account) Tokens { return ofAccount{account} }

type ofAccount struct{ *pds.Account }

func (a ofAccount) ServiceToken(ctx context.Context, audience, method string) (string, error) {
	return a.ServiceAuth(ctx, audience, method)
}
