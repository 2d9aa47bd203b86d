package hold

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/atproto/guard"
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
	document *url.URL
	client   *http.Client

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
		document, err := documentOf(did, cmp.Or(cfg.PLC, identity.DefaultPLCURL))
		if err != nil {
			return nil, fmt.Errorf("%q may not call: %w", did, err)
		}
		all[did] = &issuer{did: did, registry: i < len(cfg.Registries), document: document, client: guard.Client(document)}
	}
	return all, nil
}

// documentOf is where a DID's document is: of a did:web by its name, as our own
// is, also on localhost, which only reaches this machine.
func documentOf(did, plc string) (*url.URL, error) {
	d, err := syntax.ParseDID(did)
	if err != nil {
		return nil, errors.New("it is not a DID")
	}
	switch d.Method() {
	case "plc":
		return url.Parse(plc + "/" + did)
	case "web":
		host := strings.ReplaceAll(d.Identifier(), "%3A", ":")
		if err := checkHostname(host); err != nil {
			return nil, err
		}
		return url.Parse(Identity{Hostname: host}.endpoint() + "/.well-known/did.json")
	}
	return nil, errors.New("its document can't be found: the network knows did:web and did:plc")
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
		// One caller that leaves must not make it fail for those who wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), identityTimeout)
		defer cancel()
		key, err := i.look(ctx)
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

// look fetches the document. That it can't be had now is our trouble, that it
// has no key is the issuer's.
func (i *issuer) look(ctx context.Context) (atcrypto.PublicKey, error) {
	doc, err := i.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", &Error{http.StatusServiceUnavailable, "ServiceUnavailable", "the DID document of " + i.did + " can't be had now; call again"}, err)
	}
	if doc.DID.String() != i.did {
		return nil, badToken("BadJwtIss", "the DID document of %s is another's", i.did)
	}
	id := identity.ParseIdentity(doc)
	key, err := id.PublicKey()
	if err != nil {
		return nil, badToken("BadJwtIss", "the DID document of %s has no key #atproto that this hold can read", i.did)
	}
	return key, nil
}

func (i *issuer) fetch(ctx context.Context) (*identity.DIDDocument, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.document.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "tidings")
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", i.document, resp.Status)
	}
	var doc identity.DIDDocument
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s is not a DID document: %w", i.document, err)
	}
	return &doc, nil
}
