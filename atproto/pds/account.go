package pds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/identity"
)

// Config describes an account. Service, Identifier, PasswordFile and File are
// required.
type Config struct {
	Service      string // URL of the PDS, or of Bluesky's entryway, https://bsky.social
	Identifier   string // handle or DID
	PasswordFile string // an app password
	File         string // where session, logins and points are kept; created with mode 0600
	PLC          string // URL of the directory of did:plc; "": the public one
	Budget       Budget
	ReadOnly     bool // File is read and never written, so that calls that need a session fail: for Resolve and Status

	// Document returns the DID document of a DID; nil: it is fetched where the DID
	// says.
	Document func(ctx context.Context, did string) (*identity.Document, error)

	UserAgent string           // "": "tidings"
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: silent
}

// An Account is one account on a PDS. Its methods may be called at the same time.
type Account struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	http    *http.Client
	service *url.URL // sessions are created here

	refreshing sync.Mutex // held while a session is refreshed or created
	writing    sync.Mutex // held during a write: a PDS makes one at a time anyway

	mu       sync.Mutex
	saved    saved
	urgent   pendingPoints
	did      string   // "": not resolved yet
	handle   string   // that the DID document names; "": none, or not resolved yet
	host     *url.URL // of the repo; nil: not resolved yet
	maxInput int      // bytes of an applyWrites input that the PDS takes, as far as is known
}

// Open reads what is kept of the account. It makes no call: the first method that
// needs the network resolves the identifier and logs in.
func Open(cfg Config) (*Account, error) {
	service, err := parseService(cfg.Service)
	if err != nil {
		return nil, err
	}
	if cfg.PLC != "" {
		directory, err := parseService(cfg.PLC)
		if err != nil {
			return nil, fmt.Errorf("plc: %w", err)
		}
		cfg.PLC = directory.String()
	}
	if err := CheckIdentifier(cfg.Identifier); err != nil {
		return nil, err
	}
	if cfg.Document == nil {
		cfg.Document = func(ctx context.Context, did string) (*identity.Document, error) {
			source, err := identity.NewSource(did, cfg.PLC)
			if err != nil {
				return nil, err
			}
			return source.Fetch(ctx)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "tidings"
	}
	a := &Account{cfg: cfg, log: cfg.Logger.With("component", "pds"), now: cfg.Now, service: service, maxInput: maxInput}
	a.http = newHTTPClient(a.allowedHost)
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// DID is the account's, "" until Resolve has succeeded once, in this process or an earlier
// one.
func (a *Account) DID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return cmp.Or(a.did, a.saved.DID)
}

func (a *Account) resolved() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.did != ""
}

// Resolve finds the account's DID and checks that its DID document names the
// service. It does so once in a process; an *Error with Outcome Suspended says that the
// account is somewhere else, or that the handle belongs to another account now.
//
// The service resolves a handle, for the password goes there anyway. What it
// answers has to agree with the DID document, which it does not serve.
func (a *Account) Resolve(ctx context.Context) error {
	if a.resolved() {
		return nil
	}
	did := a.cfg.Identifier
	if !strings.HasPrefix(did, "did:") {
		var out struct {
			DID string `json:"did"`
		}
		_, err := a.do(ctx, request{method: "com.atproto.identity.resolveHandle", query: url.Values{"handle": {did}}}, &out)
		if err != nil {
			return err
		}
		if did = out.DID; identity.OnThisMachine(did) && !guard.Loopback(a.service.Hostname()) {
			return a.failedResolve(Suspended, fmt.Errorf("the service resolves it to %s, which is on this machine; check the handle, or set identifier to the account's DID", guard.Printable(did, 100)))
		}
	}
	if _, err := syntax.ParseDID(did); err != nil {
		return a.failedResolve(Suspended, fmt.Errorf("%s is not a DID", guard.Printable(did, 100)))
	}
	document, err := a.cfg.Document(ctx, did)
	if err != nil {
		return a.failedResolve(Unknown, fmt.Errorf("DID document of %s: %w", did, guard.WithoutURL(err)))
	}
	host, err := a.checkDocument(did, document)
	if err != nil {
		return a.failedResolve(Suspended, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if before := a.saved.DID; before != did {
		if before != "" {
			return a.failedResolve(Suspended, fmt.Errorf("it was the account %s and is %s now: set identifier to the DID of one of them", before, did))
		}
		a.saved.DID = did
		if err := a.save(); err != nil && !errors.Is(err, errReadOnly) {
			a.saved.DID = ""
			return err
		}
	}
	a.did, a.handle, a.host = did, document.Handle(), host
	return nil
}

func (a *Account) failedResolve(outcome Outcome, err error) error {
	return &Error{Method: "resolve " + a.cfg.Identifier, Outcome: outcome, Err: err, reason: reasonIdentity}
}

// checkDocument returns the host of the repo.
func (a *Account) checkDocument(did string, document *identity.Document) (*url.URL, error) {
	if document.ID != did {
		return nil, fmt.Errorf("the DID document of %s is one of %s", did, guard.Printable(document.ID, 100))
	}
	handle := a.cfg.Identifier
	known := func(alias string) bool { return strings.EqualFold(alias, "at://"+handle) }
	if handle != did && !slices.ContainsFunc(document.AlsoKnownAs, known) {
		return nil, fmt.Errorf("%s is resolved to %s, whose DID document does not have that handle", handle, did)
	}
	return a.repoHost(did, document.Host())
}

// Bluesky's accounts log in at an entryway, and their repos are on hosts below
// another domain. Both are run by Bluesky.
const (
	entryway      = "bsky.social"
	entrywayHosts = ".host.bsky.network"
)

// repoHost returns the host of the repo: the service, or a host of the entryway.
// Any other host in the DID document is an error, for the operator did not name
// it: tokens would go there, and addresses inside a network could be called.
func (a *Account) repoHost(did, pds string) (*url.URL, error) {
	host, err := parseService(pds)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the DID document of %s names no PDS: %w", did, err)
	case sameHost(host, a.service):
		return a.service, nil
	case a.service.Scheme == "https" && a.service.Host == entryway && host.Scheme == "https" && strings.HasSuffix(host.Host, entrywayHosts):
		return host, nil
	}
	return nil, fmt.Errorf("the DID document of %s names %s, and service is %s: set service to the PDS of the account", did, host, a.service)
}

func sameHost(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// allowedHost reports whether a redirect may lead to a URL: to the service or the
// repo's host.
func (a *Account) allowedHost(u *url.URL) bool {
	a.mu.Lock()
	host := a.host
	a.mu.Unlock()
	return sameHost(u, a.service) || host != nil && sameHost(u, host)
}

// notSent wraps an error of our own disk, which kept a call from being made.
func notSent(method string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Method: method, Outcome: Unknown, Err: err}
}
