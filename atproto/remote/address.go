package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/identity"
)

// The service of a hold in its DID document. A hold without one is called where its repo
// is.
const (
	holdService     = "#atcr_hold"
	holdServiceType = "AtcrHoldService"
	pdsService      = "#atproto_pds"
)

const (
	refreshAfter = time.Hour       // a DID document is used this long
	refreshError = 5 * time.Minute // and this long if the hold refuses or cannot be reached
	callTime     = 30 * time.Second
)

// An address is where a hold is called. It does not change.
type address struct {
	endpoint  *url.URL
	repo      *url.URL // serves the repo; mostly the same
	audiences []string // for tokens: of the service, and the bare DID, which is deprecated
	client    *http.Client
	reader    *http.Client // of repo
}

// address returns where the hold is called. If the DID document cannot be fetched, the
// address that is known is used.
func (h *Hold) address(ctx context.Context) (*address, error) {
	now := h.cfg.Now()
	h.mu.Lock()
	at, age := h.at, now.Sub(h.resolved)
	failing := h.last != nil
	h.mu.Unlock()
	if at != nil && age >= 0 && (age < refreshError || !failing && age < refreshAfter) {
		return at, nil
	}
	document, err := h.source.Fetch(ctx)
	if err != nil && at != nil {
		return at, nil
	}
	if err != nil {
		return nil, fmt.Errorf("DID document of %s: %w", h.cfg.Hold, guard.WithoutURL(err))
	}
	found, err := h.parse(document)
	if err != nil {
		return nil, fmt.Errorf("DID document of %s: %w", h.cfg.Hold, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resolved = now
	if at == nil || !at.same(found) {
		h.at, h.audience, h.keys = found, "", KeysUnknown
		h.log.Info("the hold was resolved", "endpoint", found.endpoint.String())
	}
	return h.at, nil
}

func (a *address) same(b *address) bool {
	return *a.endpoint == *b.endpoint && *a.repo == *b.repo && a.audiences[0] == b.audiences[0]
}

// parse reads the address from a DID document.
func (h *Hold) parse(d *identity.Document) (*address, error) {
	if d.ID != h.cfg.Hold {
		return nil, fmt.Errorf("it is the document of %s", guard.Printable(d.ID, 100))
	}
	service, ok := findHold(d)
	if !ok {
		return nil, fmt.Errorf("it has no service %s or %s", holdService, pdsService)
	}
	endpoint, err := h.server(service.ServiceEndpoint)
	if err != nil {
		return nil, err
	}
	repo := endpoint
	if host := d.Host(); host != "" {
		if repo, err = h.server(host); err != nil {
			return nil, err
		}
	}
	fragment := strings.TrimPrefix(service.ID, d.ID)
	at := &address{endpoint: endpoint, repo: repo, audiences: []string{d.ID + fragment, d.ID}, client: newClient(endpoint)}
	if at.reader = at.client; *repo != *endpoint {
		at.reader = newClient(repo)
	}
	return at, nil
}

// newClient returns a client that does not follow redirects: another host would see the
// token and the manifest.
func newClient(server *url.URL) *http.Client {
	client := guard.KeepAlive(server)
	client.Timeout = callTime
	return client
}

func findHold(d *identity.Document) (identity.Service, bool) {
	var found identity.Service
	for _, s := range d.Service {
		id := strings.TrimPrefix(s.ID, d.ID)
		switch {
		case id == holdService, s.Type == holdServiceType && strings.HasPrefix(id, "#"):
			return s, true
		case id == pdsService:
			found = s
		}
	}
	return found, found.ID != ""
}

// server parses the address of a service. The document may name a server on this machine
// only if it comes from one.
func (h *Hold) server(text string) (*url.URL, error) {
	u, err := guard.ParseServer(text, "a hold", "https://hold.example.com")
	if err != nil {
		return nil, err
	}
	if guard.Loopback(u.Hostname()) && !guard.Loopback(h.source.URL.Hostname()) {
		return nil, errors.New("its service is on this machine")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Resolve returns the endpoint of a hold by its DID document, without calling the hold. plc
// is the directory of did:plc; "": the public one.
func Resolve(ctx context.Context, hold, plc string) (endpoint string, err error) {
	h, err := New(Config{Hold: hold, PLC: plc, Tokens: signed{}})
	if err != nil {
		return "", err
	}
	at, err := h.address(ctx)
	if err != nil {
		return "", err
	}
	return at.endpoint.String(), nil
}
