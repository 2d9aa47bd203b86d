package hold

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/firehose"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Config is what a Server serves. Identity and Repo are required.
type Config struct {
	identity.Identity
	Repo *repo.Repo

	Login        bool   // the account's owner may log in and write
	PasswordFile string // what SetPassword wrote; read at each login. Sessions are kept beside it

	BlobLimit   int64 // bytes of an uploaded blob; 0: 5 MiB
	ImportLimit int64 // bytes of an imported repository; 0: 256 MiB

	// Folder names the repository's folder, as no copy of it is named; empty: it is
	// not known.
	Folder string

	Relays  []string // who is asked to crawl, https://host; a localhost hold asks nobody
	Metrics *Metrics // nil: silent

	Notices    Notices  // takes what other registries tell; nil: notifyManifest is not served
	Registries []string // DIDs that may tell it of any owner's images
	Owners     []string // DIDs that may tell it of images of their own
	PLC        string   // directory where a did:plc is looked up, https://host; empty: the public one

	Version string           // told by _health; may be empty
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
}

// Server answers /xrpc/*, /.well-known/did.json and /.well-known/atproto-did.
// How long an answer may take to be written is up to whoever serves it.
type Server struct {
	id           identity.Identity
	repo         *repo.Repo
	login        bool
	passwordFile string
	version      string
	now          func() time.Time
	lg           *slog.Logger

	doc       identity.Document
	wellKnown wellKnown
	rpc       xrpc.Server
	tids      *syntax.TIDClock // for records whose key the caller leaves to us
	logins    loginLimit
	slow      *slowLane
	right     *rightPassword

	sessions *sessions
	secret   secretCache
	known    knownTokens

	firehose *firehose.Firehose
	crawler  *crawl.Crawler // nil: nobody is asked
	own      *ownDocument   // nil: on localhost
	told     bool           // Settle had something to tell
	folder   string

	notices Notices
	callers map[string]*issuer // by their DIDs
	tokens  usedTokens

	hashing chan struct{}      // one password is hashed at a time
	exports *clientaddr.Places // getRepo calls at a time
	uploads chan struct{}      // bodies that are not JSON at a time

	blobLimit, importLimit int64
}

// maxExports is how many getRepo answers may be under way. Each keeps a
// snapshot of the repository open for as long as its client reads.
const maxExports = 4

// New makes a Server. It does not own the repository.
func New(cfg Config) (*Server, error) {
	if cfg.Repo == nil || cfg.Key == nil || cfg.DID == "" {
		return nil, errors.New("hold: identity and repository are required")
	}
	doc, err := cfg.Document()
	if err != nil {
		return nil, fmt.Errorf("hold: read public key: %w", err)
	}
	s := &Server{
		doc:          doc,
		id:           cfg.Identity,
		repo:         cfg.Repo,
		login:        cfg.Login,
		passwordFile: cfg.PasswordFile,
		version:      cfg.Version,
		folder:       cfg.Folder,
		now:          cfg.Now,
		lg:           cfg.Logger,
		slow:         newSlowLane(),
		right:        newRightPassword(),
		hashing:      make(chan struct{}, 1),
		exports:      clientaddr.NewPlaces(maxExports, maxExports/2),
		uploads:      make(chan struct{}, maxUploads),
		blobLimit:    cmp.Or(cfg.BlobLimit, defaultBlobLimit),
		importLimit:  cmp.Or(cfg.ImportLimit, defaultImportLimit),
		tids:         syntax.NewTIDClock(uint(rand.Uint32N(1 << 10))),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.lg == nil {
		s.lg = slog.New(slog.DiscardHandler)
	}
	s.lg = s.lg.With("component", "hold")
	if s.sessions, err = openSessions(cfg.PasswordFile+".sessions", s.lg); err != nil {
		return nil, err
	}
	if err := s.openNetwork(cfg); err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	if s.own, err = newOwnDocument(cfg.Identity, doc); err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	if cfg.MovedTo != nil {
		s.lg.Warn("the account has moved: did.json shows where, and nothing is written here", "account", s.id.DID, "to", cfg.MovedTo)
	}
	s.wellKnown = wellKnown{doc, s.lg}
	s.rpc = xrpc.Server{Elsewhere: servedElsewhere, Errors: repoError, Logger: s.lg, Handlers: map[string]http.Handler{
		"_health":                         http.HandlerFunc(s.health),
		"com.atproto.sync.subscribeRepos": s.firehose,
	}}
	s.notices = cfg.Notices
	if s.callers, err = newIssuers(cfg); err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	s.rpc.Methods = map[string]xrpc.Method{
		"com.atproto.server.describeServer":  xrpc.Query(xrpc.Public, s.describeServer),
		"com.atproto.server.createSession":   xrpc.Procedure(s.mayLogIn, s.createSession),
		"com.atproto.server.refreshSession":  xrpc.Procedure(xrpc.Public, s.refreshSession),
		"com.atproto.server.getSession":      xrpc.Query(s.session, s.getSession),
		"com.atproto.identity.resolveHandle": xrpc.Query(xrpc.Public, s.resolveHandle),
		"com.atproto.repo.applyWrites":       xrpc.Procedure(s.session, s.applyWrites),
		"com.atproto.repo.createRecord":      xrpc.Procedure(s.session, s.createRecord),
		"com.atproto.repo.putRecord":         xrpc.Procedure(s.session, s.putRecord),
		"com.atproto.repo.deleteRecord":      xrpc.Procedure(s.session, s.deleteRecord),
		"com.atproto.repo.getRecord":         xrpc.Query(xrpc.Public, s.getRecord),
		"com.atproto.repo.listRecords":       xrpc.Query(xrpc.Public, s.listRecords),
		"com.atproto.repo.describeRepo":      xrpc.Query(xrpc.Public, s.describeRepo),
		"com.atproto.repo.uploadBlob":        xrpc.Procedure(s.session, s.uploadBlob),
		"com.atproto.repo.listMissingBlobs":  xrpc.Query(s.session, s.listMissingBlobs),
		"com.atproto.repo.importRepo":        xrpc.Procedure(s.session, s.importRepo),
		"com.atproto.server.deleteSession":   xrpc.Procedure(xrpc.Public, s.deleteSession),
		"com.atproto.server.getServiceAuth":  xrpc.Query(s.session, s.getServiceAuth),
		"com.atproto.sync.getBlob":           xrpc.Query(xrpc.Public, s.getBlob),
		"com.atproto.sync.listBlobs":         xrpc.Query(xrpc.Public, s.listBlobs),
		"com.atproto.sync.getBlocks":         xrpc.Query(xrpc.Public, s.getBlocks),
		"com.atproto.sync.getRepoStatus":     xrpc.Query(xrpc.Public, s.getRepoStatus),
		"com.atproto.sync.listRepos":         xrpc.Query(xrpc.Public, s.listRepos),
		"com.atproto.sync.getHead":           xrpc.Query(xrpc.Public, s.getHead),
		"com.atproto.sync.getCheckout":       xrpc.Query(xrpc.Public, s.getCheckout),
		"com.atproto.sync.getCommitPath":     xrpc.Query(xrpc.Public, s.getCommitPath),
		"com.atproto.sync.getLatestCommit":   xrpc.Query(xrpc.Public, s.getLatestCommit),
		"com.atproto.sync.getRepo":           xrpc.Query(xrpc.Public, s.getRepo),
		"com.atproto.sync.getRecord":         xrpc.Query(xrpc.Public, s.syncGetRecord),
	}
	if s.notices != nil {
		s.rpc.Methods[lexicon.NSIDNotifyManifest] = xrpc.Procedure(s.service, s.notifyManifest)
	}
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/xrpc/") {
		s.wellKnown.ServeHTTP(w, r)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s.rpc.ServeHTTP(w, r)
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
	lexicon.NSIDNotifyManifest:               "a hold inside a registry serves it, and this one runs without a registry",
}
