package handles

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
)

const (
	fresh      = time.Hour        // how long a DID is used until its handle is resolved again
	usable     = 24 * time.Hour   // how long it is used if that fails
	minRetry   = 30 * time.Second // after the first failure; doubled with each further one
	maxRetry   = time.Hour
	timeout    = 15 * time.Second // of a lookup
	maxLookups = 32               // at once
	maxCached  = 10_000           // handles, of a few hundred bytes each
	keepEvery  = time.Minute      // how often kept handles are checked
)

// errBusy is returned while the maximum of lookups is running.
var errBusy = errors.New("too many handles are being resolved; try again")

// Config configures New.
type Config struct {
	PLC string // directory of did:plc, https://host; "": the public one

	// Keep are handles that Run resolves at once and keeps in the cache. KeepAccounts
	// are DIDs whose handles it keeps in the same way.
	Keep, KeepAccounts []string

	TXT       func(ctx context.Context, name string) ([]string, error) // nil: the system's DNS
	Transport http.RoundTripper                                        // nil: that of atproto/guard
	Now       func() time.Time                                         // nil: time.Now
}

// A Resolver resolves handles. Its methods are safe for concurrent use.
type Resolver struct {
	cfg     Config
	closing chan struct{}
	lookups sync.WaitGroup

	mu      sync.Mutex
	entries generations.Map[string, *entry]
	running int
	closed  bool
	changed chan struct{} // closed by the next lookup that ends
}

// entry is what is known of a handle.
type entry struct {
	did      string // "": not known
	resolved time.Time
	err      error         // of the last lookup
	failures int           // in a row
	next     time.Time     // when it may be looked up again
	done     chan struct{} // closed when the running lookup ends; nil: none is running
}

func (e *entry) usable(now time.Time) bool { return e.did != "" && now.Sub(e.resolved) < usable }

// New returns a Resolver, which resolves nothing yet. Close stops it.
func New(cfg Config) *Resolver {
	if cfg.TXT == nil {
		cfg.TXT = net.DefaultResolver.LookupTXT
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{
		cfg: cfg, closing: make(chan struct{}), changed: make(chan struct{}),
		entries: generations.New[string, *entry](maxCached),
	}
}

// Close ends running lookups, and no others begin.
func (r *Resolver) Close() error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	r.mu.Unlock()
	r.lookups.Wait()
	return nil
}

// Cached returns the DID of a handle if it is known. It does not wait: a handle that is
// not known, or whose DID is older than an hour, is looked up in the background.
func (r *Resolver) Cached(handle string) (did string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.look(handle)
	return e.did, e.usable(r.cfg.Now())
}

// Resolve returns the DID of a handle, and waits for a lookup if it is not known. After a
// failure it returns the same error until the next lookup is due.
func (r *Resolver) Resolve(ctx context.Context, handle string) (did string, err error) {
	for {
		r.mu.Lock()
		e := r.look(handle)
		did, err, done := e.did, e.err, e.done
		known := e.usable(r.cfg.Now())
		r.mu.Unlock()
		switch {
		case known:
			return did, nil
		case done == nil && err == nil:
			return "", errBusy
		case done == nil:
			return "", err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Changed returns a channel that is closed when the next lookup ends.
func (r *Resolver) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// look returns the entry of a handle, and begins a lookup if one is due. The caller holds
// mu.
func (r *Resolver) look(handle string) *entry {
	e, ok := r.entries.Get(handle)
	if !ok {
		e = &entry{}
	}
	r.entries.Put(handle, e, 1)
	if e.done != nil || r.cfg.Now().Before(e.next) || r.running >= maxLookups || r.closed {
		return e
	}
	e.done = make(chan struct{})
	r.running++
	r.lookups.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-r.closing:
				cancel()
			case <-ended:
			}
		}()
		did, err := r.lookup(ctx, handle)
		r.end(e, did, err)
	})
	return e
}

// end stores the result of a lookup. A handle that could not be looked up keeps its DID
// for a day; one that its DID does not confirm loses it.
func (r *Resolver) end(e *entry, did string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	if err == nil {
		e.did, e.resolved, e.err, e.failures, e.next = did, now, nil, 0, now.Add(fresh)
	} else {
		e.err, e.next = err, now.Add(min(minRetry<<min(e.failures, 20), maxRetry))
		e.failures++
		if errors.Is(err, ErrUnverified) {
			e.did = ""
		}
	}
	close(e.done)
	e.done = nil
	r.running--
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run keeps the handles of the configuration in the cache until ctx ends.
func (r *Resolver) Run(ctx context.Context) error {
	kept, accounts := r.cfg.Keep, r.cfg.KeepAccounts
	var listed time.Time // when the handles of accounts were read
	of := map[string]string{}
	for ctx.Err() == nil {
		if len(accounts) > 0 && r.cfg.Now().Sub(listed) >= fresh {
			r.readAccounts(ctx, accounts, of)
			listed = r.cfg.Now()
		}
		changed := r.Changed()
		for _, handle := range kept {
			r.Cached(handle)
		}
		for _, handle := range of {
			r.Cached(handle)
		}
		timer := time.NewTimer(keepEvery)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// readAccounts reads the handles that the documents of accounts name. They are not
// trusted: each is resolved like any other.
func (r *Resolver) readAccounts(ctx context.Context, accounts []string, of map[string]string) {
	for _, did := range accounts {
		doc, err := r.document(ctx, did)
		if err == nil && doc.ID == did && Validate(doc.Handle()) == nil {
			of[did] = doc.Handle()
		}
		if ctx.Err() != nil {
			return
		}
	}
}
