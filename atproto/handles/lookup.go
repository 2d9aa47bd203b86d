package handles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/identity"
)

// ErrUnverified is returned if a handle names a DID whose document does not name the
// handle.
var ErrUnverified = errors.New("unverified handle")

// maxWellKnown is how much of /.well-known/atproto-did is read, in bytes. A DID has at
// most 2048.
const maxWellKnown = 2100

// Validate returns an error if a name is not a handle that the network allows.
func Validate(name string) error {
	handle, err := syntax.ParseHandle(name)
	switch {
	case err != nil:
		return fmt.Errorf(`%q is not a handle; use a domain like "alice.example.com"`, name)
	case name != handle.Normalize().String():
		return fmt.Errorf("%q has capital letters; handles are written in small letters", name)
	case !handle.AllowedTLD():
		return fmt.Errorf("%q has a top-level domain that the network does not allow in handles", name)
	}
	return nil
}

// lookup resolves a handle in both directions.
func (r *Resolver) lookup(ctx context.Context, handle string) (did string, err error) {
	if err := Validate(handle); err != nil {
		return "", err
	}
	if did, err = r.named(ctx, handle); err != nil {
		return "", err
	}
	doc, err := r.document(ctx, did)
	if err != nil {
		return "", err
	}
	if doc.ID != did || doc.Handle() != handle {
		return "", fmt.Errorf("%w: %s names %s, whose DID document names %q", ErrUnverified, handle, did, doc.Handle())
	}
	return did, nil
}

// named returns the DID that a handle names: in DNS or, if there is none, on its host.
func (r *Resolver) named(ctx context.Context, handle string) (string, error) {
	did, err := r.inDNS(ctx, handle)
	if did != "" || err != nil {
		return did, err
	}
	return r.onHost(ctx, handle)
}

// inDNS returns the DID of the TXT record, "" if there is none or if DNS does not answer.
func (r *Resolver) inDNS(ctx context.Context, handle string) (string, error) {
	texts, err := r.cfg.TXT(ctx, "_atproto."+handle+".") // the dot: without search domains
	if err != nil {
		return "", ctx.Err()
	}
	var dids []string
	for _, text := range texts {
		if did, ok := strings.CutPrefix(text, "did="); ok && !slices.Contains(dids, did) {
			dids = append(dids, did)
		}
	}
	if len(dids) > 1 {
		return "", fmt.Errorf("DNS has %d different DIDs for %s", len(dids), handle)
	}
	if len(dids) == 0 {
		return "", nil
	}
	return dids[0], identity.CheckAccount(dids[0])
}

// onHost returns the DID at /.well-known/atproto-did.
func (r *Resolver) onHost(ctx context.Context, handle string) (string, error) {
	u := &url.URL{Scheme: "https", Host: handle, Path: "/.well-known/atproto-did"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "tidings")
	resp, err := r.client(guard.Client(u)).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %d", u, resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxWellKnown))
	if err != nil {
		return "", fmt.Errorf("%s: %w", u, err)
	}
	did := strings.TrimSpace(string(text))
	if err := identity.CheckAccount(did); err != nil {
		return "", fmt.Errorf("%s is not the DID of an account", u)
	}
	return did, nil
}

// document fetches a DID document. A did:web of this machine is refused: the operator
// has not chosen it.
func (r *Resolver) document(ctx context.Context, did string) (*identity.Document, error) {
	if identity.OnThisMachine(did) {
		return nil, fmt.Errorf("%s is on this machine", did)
	}
	source, err := identity.NewSource(did, r.cfg.PLC)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", did, err)
	}
	source.Client = r.client(source.Client)
	return source.Fetch(ctx)
}

// client returns the client, with the transport that tests use.
func (r *Resolver) client(c *http.Client) *http.Client {
	if r.cfg.Transport != nil {
		c.Transport = r.cfg.Transport
	}
	return c
}
