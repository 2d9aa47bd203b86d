package firehose

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Config is what a Firehose works with. Log is required.
type Config struct {
	Log Log

	// MaxSubscribers is how many may be connected; 0: 1000. One client
	// (clientaddr.Of) gets a quarter of them.
	MaxSubscribers int

	// Joined is told of each new subscriber, and whether it starts with the next
	// event because it has no cursor. It must not block. May be nil.
	Joined func(live bool)

	Slow         Slow          // who is too slow
	Ping         time.Duration // between pings; 0: 30 seconds
	Silence      time.Duration // a subscriber that answers no ping for so long is dropped; 0: 10 minutes
	WriteTimeout time.Duration // for one message; 0: 2 minutes
	Drain        time.Duration // the most that Shutdown takes; 0: 2 seconds

	Now     func() time.Time // nil: time.Now
	Metrics *Metrics         // nil: silent
	Logger  *slog.Logger     // nil: silent
}

func (c Config) withDefaults() Config {
	for value, standard := range map[*time.Duration]time.Duration{
		&c.Ping: 30 * time.Second, &c.Silence: 10 * time.Minute, &c.WriteTimeout: 2 * time.Minute, &c.Drain: 2 * time.Second,
	} {
		if *value == 0 {
			*value = standard
		}
	}
	c.Slow = c.Slow.withDefaults()
	if c.MaxSubscribers == 0 {
		c.MaxSubscribers = 1000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "firehose")
	return c
}

// Firehose serves subscribers. It is an http.Handler.
type Firehose struct {
	cfg     Config
	feed    feed
	closing chan struct{} // closed by Shutdown

	mu     sync.Mutex
	closed bool
	subs   map[*subscriber]struct{}
	places *clientaddr.Places // taken also by those who are not yet in subs
	empty  chan struct{}      // closed when closed and all places are free
}

// New makes a Firehose.
func New(cfg Config) *Firehose {
	cfg = cfg.withDefaults()
	return &Firehose{
		cfg:     cfg,
		feed:    feed{log: cfg.Log},
		closing: make(chan struct{}),
		subs:    map[*subscriber]struct{}{},
		places:  clientaddr.NewPlaces(cfg.MaxSubscribers, max(1, cfg.MaxSubscribers/4)),
		empty:   make(chan struct{}),
	}
}

// upgrader takes subscribers from everywhere: there is nothing to protect.
var upgrader = websocket.Upgrader{
	HandshakeTimeout: 10 * time.Second,
	CheckOrigin:      func(*http.Request) bool { return true },
	Error: func(w http.ResponseWriter, r *http.Request, status int, err error) {
		answer(w, status, "InvalidRequest", "connect as a WebSocket: "+err.Error())
	},
}

// ServeHTTP makes the request a stream. It returns as soon as that has begun:
// a stream lasts for months and takes no place among requests.
func (f *Firehose) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client := clientaddr.Of(r)
	if !f.take(client) {
		f.cfg.Metrics.full()
		w.Header().Set("Retry-After", "60")
		answer(w, http.StatusServiceUnavailable, "TooManySubscribers", "there is no place for another subscriber now; try again in a minute")
		return
	}
	head := f.cfg.Log.Head() // who is connected misses nothing from then on
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		f.give(client)
		return
	}
	s := &subscriber{
		firehose: f,
		conn:     conn,
		client:   client,
		cursor:   head,
		gone:     make(chan struct{}),
		pace:     pace{limit: f.cfg.Slow},
	}
	f.join(s)
	go s.run(r.URL.Query()["cursor"])
}

func (f *Firehose) take(client netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.closed && f.places.Take(client)
}

func (f *Firehose) give(client netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free(client)
}

// free frees a place. The caller must hold mu.
func (f *Firehose) free(client netip.Prefix) {
	f.places.Give(client)
	if f.places.Taken() == 0 {
		f.feed.forget()
		if f.closed {
			close(f.empty)
		}
	}
}

func (f *Firehose) join(s *subscriber) {
	f.mu.Lock()
	f.subs[s] = struct{}{}
	f.mu.Unlock()
	f.cfg.Metrics.joined()
}

func (f *Firehose) leave(s *subscriber, why error) {
	f.cfg.Metrics.left(why)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, s)
	f.free(s.client)
}

// Shutdown takes no more subscribers and sends each a going-away frame. Those
// who don't leave within Config.Drain, or until the context ends, are cut off.
// It may be called twice.
func (f *Firehose) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.closing)
		if f.places.Taken() == 0 {
			close(f.empty)
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Drain)
	defer cancel()
	select {
	case <-f.empty:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	left := len(f.subs)
	for s := range f.subs {
		_ = s.conn.NetConn().Close()
	}
	f.mu.Unlock()
	select {
	case <-f.empty:
		f.cfg.Logger.Info("subscribers were cut off", "count", left)
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("shut down firehose: %d subscribers don't end", left)
	}
}

// Subscribers is how many are connected.
func (f *Firehose) Subscribers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs)
}

func answer(w http.ResponseWriter, status int, name, message string) {
	body, err := json.Marshal(map[string]string{"error": name, "message": message})
	if err != nil {
		panic(err) // text always encodes
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}
