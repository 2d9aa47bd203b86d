package hold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Config configures a Server. Identity, Repo and Network are required.
type Config struct {
	identity.Identity
	Repo    *repo.Repo
	Network *Network // of the same repo

	Login        bool   // the account's owner may log in and write
	PasswordFile string // written by auth.SetPassword, read at each login. Sessions are kept next to it

	BlobLimit   int64 // bytes of an uploaded blob; 0: 5 MiB
	ImportLimit int64 // bytes of an imported repo; 0: 256 MiB

	// Folder identifies the folder of the repo, so that a copy of it in another
	// folder is noticed; empty: unknown.
	Folder string

	Quotas     Quotas     // has the usage of owners; nil: getQuota is not served
	UserData   UserData   // knows whose data is here; nil: exportUserData and deleteUserData are not served
	Notifier   Notifier   // records notifications of other registries; nil: notifyManifest is not served
	Registries []string   // DIDs that may report images of any owner
	Owners     []string   // DIDs that may report pushes of their own images, and pulls of any
	Pulls      auth.Pulls // who else may report pulls; "": only Registries and Owners
	Audiences  []string   // of service tokens, besides our DID and its services
	PLC        string     // directory of did:plc, https://host; empty: the public one

	Version string           // shown by _health; may be empty
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
}

// Server serves /xrpc/, /.well-known/did.json and /.well-known/atproto-did. The
// HTTP server around it limits the time for writing a response.
type Server struct {
	id      identity.Identity
	doc     identity.Document
	repo    *repo.Repo
	version string
	folder  string
	now     func() time.Time
	lg      *slog.Logger

	wellKnown wellKnown
	rpc       xrpc.Server
	sessions  *auth.Sessions
	callers   *auth.Callers
	quotas    Quotas
	userData  UserData
	notifier  Notifier
	tids      *syntax.TIDClock // for records whose key the client leaves to us

	network   *Network
	own       *ownDocument // nil: on localhost
	announced bool         // UpdateStatus announced a change since the start

	exports *clientaddr.Slots // slots for long reads
	uploads chan struct{}     // slots for bodies that are not JSON

	userExports, userDeletions accountSlots // slots for exports and deletions of an account's data

	blobLimit, importLimit int64
}

// New returns a Server for a repo, which it does not close.
func New(cfg Config) (*Server, error) {
	s, err := newServer(cfg)
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	return s, nil
}

func newServer(cfg Config) (*Server, error) {
	if cfg.Repo == nil || cfg.Network == nil || cfg.Key == nil || cfg.DID == "" {
		return nil, errors.New("identity, repo and network are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	doc, err := cfg.Document()
	if err != nil {
		return nil, err
	}
	s := &Server{
		userData:    cfg.UserData,
		id:          cfg.Identity,
		doc:         doc,
		repo:        cfg.Repo,
		network:     cfg.Network,
		version:     cfg.Version,
		folder:      cfg.Folder,
		now:         cfg.Now,
		lg:          cfg.Logger.With("component", "hold"),
		quotas:      cfg.Quotas,
		notifier:    cfg.Notifier,
		tids:        syntax.NewTIDClock(uint(rand.Uint32N(1 << 10))),
		exports:     clientaddr.NewSlots(maxExports, maxExports/2),
		uploads:     make(chan struct{}, maxUploads),
		blobLimit:   cmp.Or(cfg.BlobLimit, defaultBlobLimit),
		importLimit: cmp.Or(cfg.ImportLimit, defaultImportLimit),
	}
	for _, open := range []func(Config) error{s.openSessions, s.openCallers, s.openOwnDocument} {
		if err := open(cfg); err != nil {
			return nil, err
		}
	}
	s.wellKnown = wellKnown{doc, s.lg}
	s.rpc = xrpc.Server{Methods: s.methods(), Handlers: s.handlers(), Elsewhere: servedElsewhere, Errors: repoError, Logger: s.lg}
	if cfg.MovedTo != nil {
		s.lg.Warn("the account has moved: did.json shows its new host, and writes are refused", "account", s.id.DID, "to", cfg.MovedTo)
	}
	return s, nil
}

func (s *Server) openSessions(cfg Config) (err error) {
	s.sessions, err = auth.OpenSessions(auth.SessionConfig{
		Identity: cfg.Identity, Login: cfg.Login, PasswordFile: cfg.PasswordFile, Now: cfg.Now, Logger: s.lg,
	})
	return err
}

func (s *Server) openCallers(cfg Config) (err error) {
	var own func(did string) (bool, error)
	if cfg.UserData != nil {
		own = cfg.UserData.HasData
	}
	s.callers, err = auth.NewCallers(auth.CallersConfig{
		Document: s.doc, Audiences: cfg.Audiences, Registries: cfg.Registries, Owners: cfg.Owners, Pulls: cfg.Pulls, Own: own,
		PLC: cfg.PLC, Now: cfg.Now, Metrics: cfg.Network.metrics.callers,
	})
	return err
}

// Run informs subscribers of the account's status, asks relays to crawl the hold,
// and checks its DID document, until the context ends.
func (s *Server) Run(ctx context.Context) error {
	if s.own != nil {
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() { s.watchIdentity(ctx) })
	}
	if !s.retryUpdateStatus(ctx) || !s.needsCrawl() {
		<-ctx.Done()
		return nil
	}
	return s.network.crawler.Run(ctx)
}

// needsCrawl reports whether there is something for relays to read. From an
// account that has moved that is only the announcement.
func (s *Server) needsCrawl() bool {
	return s.network.crawler != nil && (s.id.MovedTo == nil || s.announced)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/xrpc/") {
		s.wellKnown.ServeHTTP(w, r)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s.rpc.ServeHTTP(w, r)
}

// methods returns all methods with their access: public, the account's owner in a
// session (account), or another service with a service token.
func (s *Server) methods() map[string]xrpc.Method {
	public, account := xrpc.Public, s.sessions.Authorize
	methods := map[string]xrpc.Method{
		"com.atproto.server.describeServer": xrpc.Query(public, s.describeServer),
		"com.atproto.server.createSession":  xrpc.Procedure(s.sessions.AllowLogin, s.createSession),
		"com.atproto.server.getSession":     xrpc.Query(account, s.getSession),
		"com.atproto.server.refreshSession": xrpc.Procedure(public, s.refreshSession), // takes a refresh token
		"com.atproto.server.deleteSession":  xrpc.Procedure(public, s.deleteSession),  // takes a refresh token
		"com.atproto.server.getServiceAuth": xrpc.Query(account, s.getServiceAuth),

		"com.atproto.identity.resolveHandle": xrpc.Query(public, s.resolveHandle),

		"com.atproto.repo.describeRepo":     xrpc.Query(public, s.describeRepo),
		"com.atproto.repo.getRecord":        xrpc.Query(public, s.getRecord),
		"com.atproto.repo.listRecords":      xrpc.Query(public, s.listRecords),
		"com.atproto.repo.applyWrites":      xrpc.Procedure(account, s.applyWrites),
		"com.atproto.repo.createRecord":     xrpc.Procedure(account, s.createRecord),
		"com.atproto.repo.putRecord":        xrpc.Procedure(account, s.putRecord),
		"com.atproto.repo.deleteRecord":     xrpc.Procedure(account, s.deleteRecord),
		"com.atproto.repo.importRepo":       xrpc.Procedure(account, s.importRepo),
		"com.atproto.repo.uploadBlob":       xrpc.Procedure(account, s.uploadBlob),
		"com.atproto.repo.listMissingBlobs": xrpc.Query(account, s.listMissingBlobs),

		"com.atproto.sync.getRepo":         xrpc.Query(public, s.getRepo),
		"com.atproto.sync.getCheckout":     xrpc.Query(public, s.getCheckout),
		"com.atproto.sync.getBlocks":       xrpc.Query(public, s.getBlocks),
		"com.atproto.sync.getRecord":       xrpc.Query(public, s.syncGetRecord),
		"com.atproto.sync.getHead":         xrpc.Query(public, s.getHead),
		"com.atproto.sync.getLatestCommit": xrpc.Query(public, s.getLatestCommit),
		"com.atproto.sync.getCommitPath":   xrpc.Query(public, s.getCommitPath),
		"com.atproto.sync.getRepoStatus":   xrpc.Query(public, s.getRepoStatus),
		"com.atproto.sync.listRepos":       xrpc.Query(public, s.listRepos),
		"com.atproto.sync.getBlob":         xrpc.Query(public, s.getBlob),
		"com.atproto.sync.listBlobs":       xrpc.Query(public, s.listBlobs),
	}
	if s.quotas != nil {
		methods[lexicon.NSIDGetQuota] = xrpc.Query(public, s.getQuota)
	}
	if s.userData != nil {
		methods[lexicon.NSIDExportUserData] = xrpc.Query(s.ofOwnData, s.exportUserData)
		methods[lexicon.NSIDDeleteUserData] = xrpc.Procedure(s.ofOwnData, s.deleteUserData)
	}
	if s.notifier != nil {
		methods[lexicon.NSIDNotifyManifest] = xrpc.Procedure(repeatKey(s.mayNotify), s.notifyManifest)
	}
	return methods
}

func (s *Server) handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"_health":                         http.HandlerFunc(s.health),
		"com.atproto.sync.subscribeRepos": s.network.firehose,
	}
}

// servedElsewhere has hints for methods that clients may expect of an account's
// host.
var servedElsewhere = map[string]string{
	"com.atproto.sync.requestCrawl":          "a relay serves it",
	"com.atproto.sync.notifyOfUpdate":        "a relay serves it",
	"com.atproto.sync.listHosts":             "a relay serves it",
	"com.atproto.sync.getHostStatus":         "a relay serves it",
	"com.atproto.sync.listReposByCollection": "a relay serves it; com.atproto.repo.describeRepo lists the collections of this account",
	"com.atproto.server.createAccount":       "this hold has only the account of its operator",
	lexicon.NSIDNotifyManifest:               "this hold runs without a registry and accepts no notifications; its operator can allow them with hold.registries or hold.owners",
}

// health is _health. The log has the reason for a 503; the client does not get
// it. A deactivated account is healthy.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	status, result := http.StatusOK, map[string]string{"version": s.version}
	if err := s.repo.Health(); err != nil && !errors.Is(err, repo.ErrDeactivated) {
		s.lg.Error("the repo failed", "error", err)
		status, result["error"] = http.StatusServiceUnavailable, "Service Unavailable"
	}
	xrpc.WriteJSON(w, status, result, s.lg)
}
