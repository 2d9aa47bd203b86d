package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const (
	keyLife    = time.Hour        // how long a caller's key is used without fetching it again
	keyRefetch = time.Minute      // until the key is fetched again because of an invalid signature
	keyRetry   = 10 * time.Second // until the key is fetched again after a failure
)

// issuer is an account that the operator has configured, and its cached key.
type issuer struct {
	did      string
	registry bool // may report images of any owner
	source   *identity.Source

	fetches singleflight.Group // at most one fetch at a time
	cache   keyCache
}

// verifySignature checks a token with the key of its issuer, which signingKey returns as it
// was at most maxAge ago.
func verifySignature(t *serviceToken, signingKey func(maxAge time.Duration) (atcrypto.PublicKey, error)) error {
	key, err := signingKey(keyLife)
	if err != nil {
		return err
	}
	if t.signedBy(key) {
		return nil
	}
	newer, err := signingKey(keyRefetch)
	if err != nil {
		return err
	}
	if !t.signedBy(newer) {
		return errBadSignature
	}
	return nil
}

// signingKey returns the issuer's key, fetched at most maxAge ago. Concurrent
// callers wait for the same fetch, each until its context ends.
func (i *issuer) signingKey(ctx context.Context, now time.Time, maxAge time.Duration) (atcrypto.PublicKey, error) {
	if key, err := i.cache.get(now, maxAge); key != nil || err != nil {
		return key, err
	}
	return await(ctx, i.fetches.DoChan("", func() (any, error) {
		if key, err := i.cache.get(now, maxAge); key != nil || err != nil { // another fetch has just ended
			return key, err
		}
		// A client that disconnects must not make the fetch fail for the others.
		key, err := fetchKey(context.WithoutCancel(ctx), i.did, i.source)
		i.cache.store(key, err, now)
		return key, err
	}))
}

// await waits for a fetch until ctx ends.
func await(ctx context.Context, result <-chan singleflight.Result) (atcrypto.PublicKey, error) {
	select {
	case r := <-result:
		key, _ := r.Val.(atcrypto.PublicKey)
		return key, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fetchKey reads the #atproto key from an account's DID document; no other key of the
// document is accepted. A document that cannot be fetched is a temporary error; one without
// a key makes the token invalid.
func fetchKey(ctx context.Context, did string, source *identity.Source) (atcrypto.PublicKey, error) {
	doc, err := source.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", xrpc.Unavailable("can't fetch the DID document of "+did+"; try again"), err)
	}
	if doc.ID != did {
		return nil, jwtError("BadJwtIss", "the DID document of %s has another DID", did)
	}
	key, err := doc.PublicKey()
	if err != nil {
		return nil, jwtError("BadJwtIss", "the DID document of %s has no valid #atproto key", did)
	}
	return key, nil
}
