package hold

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"golang.org/x/sync/singleflight"
)

const (
	keyKept  = time.Hour        // how long a caller's key is used without another look
	keyAgain = time.Minute      // until another look, when a signature does not fit
	keyRetry = 10 * time.Second // until another look, when the last one failed
)

// issuer is an account that the operator allows to call, and its key.
type issuer struct {
	did      string
	registry bool // may speak of any owner's images
	source   *identity.Source

	looks singleflight.Group // one look at a time, for all who need it

	mu     sync.Mutex // of what is known
	key    atcrypto.PublicKey
	seen   time.Time // when it was
	err    error     // of a look after that
	failed time.Time
}

// newIssuers are those whom cfg allows to call, by their DIDs.
func newIssuers(cfg Config) (map[string]*issuer, error) {
	all := map[string]*issuer{}
	for i, did := range append(append([]string{}, cfg.Registries...), cfg.Owners...) {
		if all[did] != nil {
			continue
		}
		source, err := identity.NewSource(did, cfg.PLC)
		if err != nil {
			return nil, fmt.Errorf("%q may not call: %w", did, err)
		}
		all[did] = &issuer{did: did, registry: i < len(cfg.Registries), source: source}
	}
	return all, nil
}

// verify says whether the issuer signed the token. A signature that does not
// fit may be of a new key, but anybody can make one: so the document is not
// asked for at each.
func (i *issuer) verify(ctx context.Context, t *serviceToken, now time.Time) error {
	key, err := i.signingKey(ctx, now, keyKept)
	if err != nil {
		return err
	}
	if t.signedBy(key) {
		return nil
	}
	newer, err := i.signingKey(ctx, now, keyAgain)
	if err != nil {
		return err
	}
	if !t.signedBy(newer) {
		return errBadSignature
	}
	return nil
}

// signingKey is the one in the issuer's document, at most as old as given. Only
// those wait for the document who need it, and no longer than they want.
func (i *issuer) signingKey(ctx context.Context, now time.Time, age time.Duration) (atcrypto.PublicKey, error) {
	if key, err := i.known(now, age); key != nil || err != nil {
		return key, err
	}
	result := i.looks.DoChan("", func() (any, error) {
		if key, err := i.known(now, age); key != nil || err != nil { // another look has just ended
			return key, err
		}
		// A client that disconnects must not make the fetch fail for the others.
		key, err := i.fetch(context.WithoutCancel(ctx))
		i.note(key, err, now)
		return key, err
	})
	select {
	case r := <-result:
		key, _ := r.Val.(atcrypto.PublicKey)
		return key, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// known is the key, or the error of the last look, as long as no other look is
// due; neither if one is.
func (i *issuer) known(now time.Time, age time.Duration) (atcrypto.PublicKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.key != nil && now.Sub(i.seen) < age {
		return i.key, nil
	}
	if i.err != nil && now.Sub(i.failed) < keyRetry {
		return nil, i.err
	}
	return nil, nil
}

func (i *issuer) note(key atcrypto.PublicKey, err error, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.err, i.failed = err, now
		return
	}
	i.key, i.seen, i.err = key, now, nil
}

// fetch reads the document. If it can't be fetched the error is temporary; if it
// has no key, the token is invalid.
func (i *issuer) fetch(ctx context.Context) (atcrypto.PublicKey, error) {
	doc, err := i.source.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", xrpc.NewError(http.StatusServiceUnavailable, "ServiceUnavailable", "the DID document of "+i.did+" can't be fetched now; try again"), err)
	}
	if doc.ID != i.did {
		return nil, badToken("BadJwtIss", "the DID document of %s is another's", i.did)
	}
	key, err := doc.PublicKey()
	if err != nil {
		return nil, badToken("BadJwtIss", "the DID document of %s has no #atproto key that this hold can read", i.did)
	}
	return key, nil
}
