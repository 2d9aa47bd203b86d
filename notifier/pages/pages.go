package pages

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// Prefix is the path of the pages; the handler expects it in requests. Root is the same
// without the slash at the end.
const (
	Root   = "/tidings"
	Prefix = Root + "/"
)

const (
	repositories = Prefix + "r/"
	feedName     = "feed.atom"
	stylePath    = Prefix + "style.css"
	iconPath     = Prefix + "icon.svg"
)

// Limits of what a page and a feed list. A version has about 600 bytes in a feed.
const (
	listed  = 100
	inFeed  = 50
	inIndex = 50
)

// Config configures the pages.
type Config struct {
	Versions *versions.Store
	Counts   counts.Source                          // shown on the page of a repository; nil: not shown
	Visible  func(repository string) bool           // whether a repository is public
	Name     string                                 // of the registry, its host
	Base     string                                 // public URL of the registry, "https://registry.example.com"; "": that of the request
	Account  string                                 // DID of the account that has the posts; "": there is none
	Pull     func(repository, tag string) string    // what follows "docker pull"; nil: not shown
	Document func(v *versions.Version) (uri string) // the at:// URI of a version's document; nil: there are none
	Logger   *slog.Logger                           // nil: silent
}

type site struct {
	Config
	log     *slog.Logger
	reading chan struct{} // a slot for each of readers concurrent reads
}

// readers limits concurrent reads: a page of 100 versions takes about a millisecond.
const readers = 2

const (
	pageTimeout  = 10 * time.Second
	countTimeout = 2 * time.Second // after which a page is served without counts
)

// New returns the handler of all paths under Prefix.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &site{Config: cfg, log: cfg.Logger.With("component", "pages"), reading: make(chan struct{}, readers)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+stylePath, s.style)
	mux.HandleFunc("GET "+iconPath, s.icon)
	mux.HandleFunc("GET "+Prefix+"{$}", s.index)
	mux.HandleFunc("GET "+Prefix+feedName, s.feed)
	mux.HandleFunc("GET "+repositories+"{path...}", s.repositoryOrVersion)
	mux.HandleFunc("/", s.notFound)
	return s.limit(mux)
}

// URL returns the address of the page of a version. base is the public URL of the registry.
func URL(base, repository, version string) string { return base + Path(repository, version) }

// Path returns the path of the page of a version or, if version is empty, of a repository.
func Path(repository, version string) string {
	path := repositories + repository
	if version != "" {
		path += "/" + version
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// limit sets the headers of all responses and a deadline, and waits for a slot.
func (s *site) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "these pages are read-only: use GET", http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		select {
		case s.reading <- struct{}{}:
			defer func() { <-s.reading }()
		case <-ctx.Done():
			h.Set("Retry-After", "1")
			http.Error(w, "too many requests; try again", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// repositoryOrVersion serves r/NAME, r/NAME/feed.atom and r/NAME/VERSION. A version takes
// precedence over a repository whose name continues with the version.
func (s *site) repositoryOrVersion(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.PathValue("path"), "/")
	if len(path) > maxPath {
		s.notFound(w, r)
		return
	}
	name, last := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		name, last = path[:i], path[i+1:]
	}
	if name != "" && last == feedName {
		s.repositoryFeed(w, r, name)
		return
	}
	if name != "" {
		v, ok, err := s.Versions.Get(s.hidden(name), last)
		if err != nil {
			s.fail(w, err)
			return
		}
		if ok {
			s.version(w, r, v)
			return
		}
	}
	s.repository(w, r, path)
}

// noName is not a valid name of a repository.
const noName = "-"

// hidden replaces the name of a repository that is not public, so that the response takes as
// long as for one that does not exist.
func (s *site) hidden(name string) string {
	if !s.Visible(name) {
		return noName
	}
	return name
}

// maxPath is the maximum length of an owner's DID, a repository and a tag.
const maxPath = 2048 + 1 + 256 + 1 + 128

// base is the public URL of the registry.
func (s *site) base(r *http.Request) string {
	if s.Base != "" {
		return s.Base
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: r.Host}).String()
}

// count reads the counts of a repository; ok is false if it has none or they cannot be
// read in time.
func (s *site) count(ctx context.Context, repository string) (t counts.Totals, ok bool) {
	if s.Counts == nil {
		return t, false
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	t, _, ok, err := s.Counts.Repository(ctx, repository)
	if err != nil {
		s.log.Debug("a page is served without counts", "error", err)
		return t, false
	}
	return t, ok
}
