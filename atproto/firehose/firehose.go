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

// Config configures a Firehose. Log is required.
type Config struct {
	Log Log

	// MaxSubscribers limits the number of connected subscribers; 0: 1000. One client
	// (clientaddr.Of) gets a quarter of them.
	MaxSubscribers int

	// Joined is called for each new subscriber; live means that it has no cursor and
	// starts with the next event. It must not block. May be nil.
	Joined func(live bool)

	Slow         Slow          // which subscribers are too slow
	PingInterval time.Duration // 0: 30 seconds
	PongTimeout  time.Duration // a subscriber that answers no ping for so long is dropped; 0: 10 minutes
	WriteTimeout time.Duration // of one message; 0: 2 minutes
	DrainTimeout time.Duration // of Shutdown; 0: 2 seconds

	Now     func() time.Time // nil: time.Now
	Metrics *Metrics         // nil: silent
	Logger  *slog.Logger     // nil: silent
}

func (c Config) withDefaults() Config {
	for field, value := range map[*time.Duration]time.Duration{
		&c.PingInterval: 30 * time.Second, &c.PongTimeout: 10 * time.Minute, &c.WriteTimeout: 2 * time.Minute, &c.DrainTimeout: 2 * time.Second,
	} {
		if *field == 0 {
			*field = value
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
	slots  *clientaddr.Slots // also of subscribers that are not yet in subs
	empty  chan struct{}     // closed when closed and all slots are free
}

// New returns a Firehose.
func New(cfg Config) *Firehose {
	cfg = cfg.withDefaults()
	return &Firehose{
		cfg:     cfg,
		feed:    feed{log: cfg.Log},
		closing: make(chan struct{}),
		subs:    map[*subscriber]struct{}{},
		slots:   clientaddr.NewSlots(cfg.MaxSubscribers, max(1, cfg.MaxSubscribers/4)),
		empty:   make(chan struct{}),
	}
}

// upgrader accepts any origin: the stream is public.
var upgrader = websocket.Upgrader{
	HandshakeTimeout: 10 * time.Second,
	CheckOrigin:      func(*http.Request) bool { return true },
	Error: func(w http.ResponseWriter, r *http.Request, status int, err error) {
		answer(w, status, "InvalidRequest", "connect as a WebSocket: "+err.Error())
	},
}

// ServeHTTP starts a stream and returns. A stream can last for months and does not
// count as a request.
func (f *Firehose) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client := clientaddr.Of(r)
	if !f.acquire(client) {
		f.cfg.Metrics.full()
		w.Header().Set("Retry-After", "60")
		answer(w, http.StatusServiceUnavailable, "TooManySubscribers", "too many subscribers; try again in a minute")
		return
	}
	head := f.cfg.Log.Head() // a subscriber gets all events from its connection on
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		f.release(client)
		return
	}
	s := &subscriber{
		firehose: f,
		conn:     conn,
		client:   client,
		cursor:   head,
		ended:    make(chan struct{}),
		pace:     pace{limit: f.cfg.Slow},
	}
	f.join(s)
	go s.run(r.URL.Query()["cursor"])
}

func (f *Firehose) acquire(client netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.closed && f.slots.Acquire(client)
}

func (f *Firehose) release(client netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releaseLocked(client)
}

// releaseLocked is release for a caller that holds mu.
func (f *Firehose) releaseLocked(client netip.Prefix) {
	f.slots.Release(client)
	if f.slots.InUse() == 0 {
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
	f.releaseLocked(s.client)
}

// Shutdown accepts no more subscribers and sends each a close frame (going away).
// Connections that are still open after Config.DrainTimeout, or when the context ends,
// are closed. Shutdown may be called twice.
func (f *Firehose) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.closing)
		if f.slots.InUse() == 0 {
			close(f.empty)
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.DrainTimeout)
	defer cancel()
	select {
	case <-f.empty:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	open := len(f.subs)
	for s := range f.subs {
		_ = s.conn.NetConn().Close()
	}
	f.mu.Unlock()
	select {
	case <-f.empty:
		f.cfg.Logger.Info("connections of subscribers closed", "count", open)
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("shut down firehose: %d subscribers have not ended", open)
	}
}

// Subscribers returns the number of connected subscribers.
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
