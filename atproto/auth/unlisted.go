package auth

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
	"github.com/tidings-dev/tidings/internal/generations"
)

// Unlisted accounts are those that the operator has not configured. If they may call, which
// is checked first, a stranger chooses which document is fetched, and can have any number of accounts. What
// that costs is bounded:
//
//   - All that a token says is checked before anything is fetched.
//   - A fetch goes through atproto/guard and never to this machine, unless the hold itself
//     is on localhost. It ends after identity.FetchTimeout.
//   - A client has resolvesPerClient fetches in a window and all together resolvesTotal,
//     of which few run and few callers wait at a time.
//   - Keys and failures are cached. No entry is added without a fetch, so tokens with
//     invented issuers displace no entries that are in use: within keyLife the window
//     admits fewer fetches than the cache keeps.
//   - An account's calls, and those of all unlisted accounts, have a rate limit. It is
//     checked once the signature is valid, so that nobody uses up the rate of another
//     account, and before the token is remembered, so that the memory is bounded.
//
// Configured accounts share none of these limits and none of this memory.
const (
	resolveWindow     = 5 * time.Minute
	resolvesTotal     = 300 // in a window
	resolvesPerClient = 60

	resolvesAtOnce = 16 // a quarter for one client
	resolveWaiters = 64 // calls that wait for a fetch; a quarter for one client

	unlistedRetry = time.Minute // until a document is fetched again after a failure
	unlistedKeys  = 2 * resolvesTotal * int(keyLife/resolveWindow+1)

	rememberedIssuers = 1 << 12
)

// unlistedPace and allUnlistedPace limit the accepted calls of an unlisted account, and of
// all of them.
var (
	unlistedPace    = pace{60, time.Second}
	allUnlistedPace = pace{600, 100 * time.Millisecond}
)

// unlisted authorizes unlisted accounts.
type unlisted struct {
	keys *resolver
	pace *issuerPace
	used *usedTokens
}

func newUnlisted(cfg CallersConfig) *unlisted {
	return &unlisted{
		keys: newResolver(cfg),
		pace: newIssuerPace(unlistedPace, allUnlistedPace, rememberedIssuers),
		used: newUsedTokens(maxUnlistedTokens, maxUnlistedTokens),
	}
}

// authorize checks the signature of a token whose claims are valid, and the limits.
func (u *unlisted) authorize(ctx context.Context, t *serviceToken, client netip.Prefix, now time.Time) error {
	err := verifySignature(t, func(maxAge time.Duration) (atcrypto.PublicKey, error) {
		return u.keys.signingKey(ctx, t.claims.Issuer, client, now, maxAge)
	})
	if err != nil {
		return err
	}
	if u.used.has(t.id()) {
		return ErrTokenReplay
	}
	if wait := u.pace.allow(t.claims.Issuer, now); wait > 0 {
		return xrpc.TooManyRequests(wait)
	}
	return t.use(u.used, now)
}

// resolver has the keys of unlisted accounts.
type resolver struct {
	open    func(did string) (*identity.Source, error)
	metrics *CallerMetrics

	fetches singleflight.Group // at most one fetch for a DID at a time
	counts  *windowCounter[netip.Prefix]
	running *clientaddr.Slots // fetches
	waiting *clientaddr.Slots // calls

	mu    sync.Mutex
	cache generations.Map[string, *keyCache] // by DID
}

func newResolver(cfg CallersConfig) *resolver {
	host := strings.TrimPrefix(cfg.Document.ID, "did:web:")
	local := identity.IsLocalhost(strings.ReplaceAll(host, "%3A", ":"))
	return &resolver{
		open:    func(did string) (*identity.Source, error) { return unlistedSource(did, cfg.PLC, local) },
		metrics: cfg.Metrics,
		counts:  &windowCounter[netip.Prefix]{window: resolveWindow, total: resolvesTotal, perKey: resolvesPerClient},
		running: clientaddr.NewSlots(resolvesAtOnce, resolvesAtOnce/4),
		waiting: clientaddr.NewSlots(resolveWaiters, resolveWaiters/4),
		cache:   generations.New[string, *keyCache](unlistedKeys),
	}
}

var plcDID = regexp.MustCompile(`^did:plc:[a-z2-7]{24}$`)

// unlistedSource is the source of the document of a DID that a stranger has chosen.
func unlistedSource(did, plc string, local bool) (*identity.Source, error) {
	source, err := identity.NewSource(did, plc)
	if err != nil {
		return nil, jwtError("BadJwtIss", "%.200q can't be resolved: use a did:web of a domain or a did:plc", did)
	}
	if strings.HasPrefix(did, "did:plc:") {
		if !plcDID.MatchString(did) {
			return nil, jwtError("BadJwtIss", "%.200q is not a did:plc", did)
		}
		return source, nil
	}
	if !local && identity.OnThisMachine(did) {
		return nil, jwtError("BadJwtIss", "%.200q is on localhost, which is another machine for its issuer", did)
	}
	return source, nil
}

// signingKey returns the key of an account, fetched at most maxAge ago. Concurrent callers
// wait for the same fetch, each until its context ends.
func (r *resolver) signingKey(ctx context.Context, did string, client netip.Prefix, now time.Time, maxAge time.Duration) (atcrypto.PublicKey, error) {
	if key, err := r.cached(did, now, maxAge); key != nil || err != nil {
		return key, err
	}
	source, err := r.open(did)
	if err != nil {
		return nil, err
	}
	if !r.waiting.Acquire(client) {
		r.metrics.resolved(resolutionLimited)
		return nil, xrpc.TooManyRequests(identity.FetchTimeout)
	}
	defer r.waiting.Release(client)
	return await(ctx, r.fetches.DoChan(did, func() (any, error) {
		if key, err := r.cached(did, now, maxAge); key != nil || err != nil { // another fetch has just ended
			return key, err
		}
		// A client that disconnects must not make the fetch fail for the others.
		return r.fetch(context.WithoutCancel(ctx), did, source, client, now)
	}))
}

// fetch fetches a key within the limits and caches the result.
func (r *resolver) fetch(ctx context.Context, did string, source *identity.Source, client netip.Prefix, now time.Time) (atcrypto.PublicKey, error) {
	if !r.running.Acquire(client) {
		r.metrics.resolved(resolutionLimited)
		return nil, xrpc.TooManyRequests(identity.FetchTimeout)
	}
	defer r.running.Release(client)
	if wait, ok := r.counts.add(client, now); !ok {
		r.metrics.resolved(resolutionLimited)
		return nil, xrpc.TooManyRequests(wait)
	}
	key, err := fetchKey(ctx, did, source)
	err = quiet(err)
	r.store(did, key, err, now)
	if err != nil {
		r.metrics.resolved(resolutionFailed)
		return nil, err
	}
	r.metrics.resolved(resolutionDone)
	return key, nil
}

// quiet returns what the caller gets for err, without the cause, which is the text of a host
// that a stranger has chosen and must not fill the log.
func quiet(err error) error {
	var known *xrpc.Error
	if !errors.As(err, &known) {
		return err
	}
	answer := *known
	answer.Quiet = true
	return &answer
}

func (r *resolver) cached(did string, now time.Time, maxAge time.Duration) (atcrypto.PublicKey, error) {
	r.mu.Lock()
	c, ok := r.cache.Get(did)
	r.mu.Unlock()
	if !ok {
		return nil, nil
	}
	return c.get(now, maxAge)
}

func (r *resolver) store(did string, key atcrypto.PublicKey, err error, now time.Time) {
	r.mu.Lock()
	c, ok := r.cache.Get(did)
	if !ok {
		c = &keyCache{retry: unlistedRetry}
	}
	r.cache.Put(did, c, 1)
	r.mu.Unlock()
	c.store(key, err, now)
}
