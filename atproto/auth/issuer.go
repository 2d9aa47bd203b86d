package auth

import (
	"context"
	"fmt"
	"sync"
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

// issuer is an account that may call, and its cached key.
type issuer struct {
	did      string
	registry bool // may report images of any owner
	source   *identity.Source

	fetches singleflight.Group // at most one fetch at a time

	mu      sync.Mutex
	key     atcrypto.PublicKey
	fetched time.Time // when key was fetched
	err     error     // of a later fetch
	failed  time.Time // when it failed
}

// verify checks that the issuer signed the token.
func (i *issuer) verify(ctx context.Context, t *serviceToken, now time.Time) error {
	key, err := i.signingKey(ctx, now, keyLife)
	if err != nil {
		return err
	}
	if t.signedBy(key) {
		return nil
	}
	newer, err := i.signingKey(ctx, now, keyRefetch)
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
	if key, err := i.cached(now, maxAge); key != nil || err != nil {
		return key, err
	}
	result := i.fetches.DoChan("", func() (any, error) {
		if key, err := i.cached(now, maxAge); key != nil || err != nil { // another fetch has just ended
			return key, err
		}
		// A client that disconnects must not make the fetch fail for the others.
		key, err := i.fetch(context.WithoutCancel(ctx))
		i.store(key, err, now)
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

// cached returns the key or the error of the last fetch, or neither if a new fetch
// is due.
func (i *issuer) cached(now time.Time, maxAge time.Duration) (atcrypto.PublicKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.key != nil && now.Sub(i.fetched) < maxAge {
		return i.key, nil
	}
	if i.err != nil && now.Sub(i.failed) < keyRetry {
		return nil, i.err
	}
	return nil, nil
}

func (i *issuer) store(key atcrypto.PublicKey, err error, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.err, i.failed = err, now
		return
	}
	i.key, i.fetched, i.err = key, now, nil
}

// fetch reads the key from the issuer's DID document. A document that cannot be
// fetched is a temporary error; one without a key makes the token invalid.
func (i *issuer) fetch(ctx context.Context) (atcrypto.PublicKey, error) {
	doc, err := i.source.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", xrpc.Unavailable("can't fetch the DID document of "+i.did+"; try again"), err)
	}
	if doc.ID != i.did {
		return nil, jwtError("BadJwtIss", "the DID document of %s has another DID", i.did)
	}
	key, err := doc.PublicKey()
	if err != nil {
		return nil, jwtError("BadJwtIss", "the DID document of %s has no valid #atproto key", i.did)
	}
	return key, nil
}
