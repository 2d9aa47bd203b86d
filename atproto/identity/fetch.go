package identity

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
	"time"

	indigo "github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// FetchTimeout bounds one fetch of a DID document.
const FetchTimeout = 5 * time.Second

// maxDocument is how much of a DID document is read, in bytes.
const maxDocument = 64 << 10

// Source is where the DID document of one DID is published.
type Source struct {
	URL    *url.URL
	Client *http.Client // of atproto/guard; tests replace its transport
}

// NewSource returns the source of the document of a did:web or did:plc. plc is
// the directory of did:plc, https://host; empty means the public one. A did:web
// of localhost reaches this machine only.
func NewSource(did, plc string) (*Source, error) {
	u, err := documentURL(did, cmp.Or(plc, indigo.DefaultPLCURL))
	if err != nil {
		return nil, err
	}
	return &Source{u, guard.Client(u)}, nil
}

func documentURL(did, plc string) (*url.URL, error) {
	d, err := syntax.ParseDID(did)
	if err != nil {
		return nil, errors.New("it is not a DID")
	}
	switch d.Method() {
	case "plc":
		return url.Parse(plc + "/" + did)
	case "web":
		host := strings.ReplaceAll(d.Identifier(), "%3A", ":")
		if err := CheckHostname(host); err != nil {
			return nil, err
		}
		return url.Parse(hostURL(host) + "/.well-known/did.json")
	}
	return nil, errors.New("unsupported DID method: use did:web or did:plc")
}

// OnThisMachine reports whether a DID is a did:web of localhost. Its document must not be
// read if the DID comes from others, since it is that of another machine for them.
func OnThisMachine(did string) bool {
	name, ok := strings.CutPrefix(did, "did:web:")
	host, _, _ := strings.Cut(name, "%3A")
	return ok && guard.Loopback(host)
}

// Fetch reads the document, bypassing caches. It may be the document of another
// DID; the caller compares the ID.
func (s *Source) Fetch(ctx context.Context) (*Document, error) {
	ctx, cancel := context.WithTimeout(ctx, FetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "tidings")
	req.Header.Set("Cache-Control", "no-cache")
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", s.URL, resp.Status)
	}
	var doc Document
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s is not a DID document: %w", s.URL, err)
	}
	return &doc, nil
}
