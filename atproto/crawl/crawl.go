package crawl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	startDelay      = 5 * time.Second  // until our own port is open: a relay connects back
	requestInterval = 20 * time.Minute // between two requests to a relay that accepted

	relayWindow   = 10 * time.Minute // after a request, in which a new subscriber may be a relay
	introDelay    = time.Second      // in which new subscribers share an introduction
	introInterval = time.Minute      // between two introductions
)

// Log is the part of the event log that a Crawler needs.
type Log interface {
	// Head returns the sequence number of the last event.
	Head() uint64
	// Wake returns a channel that is closed when there may be an event after a sequence
	// number.
	Wake(after uint64) <-chan struct{}
}

// Config configures a Crawler. Hostname, Log and Introduce are required.
type Config struct {
	Hostname string   // of the hold, for relays
	Relays   []string // addresses, valid for CheckRelay
	Log      Log
	Once     bool // send no more requests to a relay that has accepted

	// Introduce logs #identity, #account and #sync.
	Introduce func(context.Context) error

	// Commit returns the account's DID and the rev of its last commit; nil: the state
	// at the relays is not queried.
	Commit func() (did, rev string)

	Metrics *Metrics     // nil: silent
	Logger  *slog.Logger // nil: silent
}

// Crawler sends requests to relays while Run runs.
type Crawler struct {
	cfg    Config
	relays []*relayClient
	joined chan struct{}
	last   atomic.Int64 // time of the last crawl request, unix nanoseconds
}

// New returns a Crawler.
func New(cfg Config) (*Crawler, error) {
	if cfg.Hostname == "" || cfg.Log == nil || cfg.Introduce == nil {
		return nil, errors.New("crawl: hostname, log and introduce are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("component", "crawl")
	c := &Crawler{cfg: cfg, joined: make(chan struct{}, 1)}
	for _, relay := range cfg.Relays {
		r, err := newRelayClient(relay, cfg.Hostname)
		if err != nil {
			return nil, fmt.Errorf("crawl: %w", err)
		}
		c.relays = append(c.relays, r)
	}
	return c, nil
}

// Run sends requests to all relays, independently of each other, until the context
// ends.
func (c *Crawler) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, relay := range c.relays {
		group.Go(func() { c.request(ctx, relay) })
		if c.cfg.Commit != nil {
			group.Go(func() { c.watch(ctx, relay) })
		}
	}
	group.Go(func() { c.introduce(ctx) })
	group.Wait()
	return nil
}

// request sends crawl requests to one relay: soon after the start, again after a
// failure, and at the first new event after requestInterval.
func (c *Crawler) request(ctx context.Context, relay *relayClient) {
	lg := c.cfg.Logger.With("relay", relay.url.Host)
	accepted, failures := false, 0
	for wait := startDelay; sleep(ctx, wait); {
		head := c.cfg.Log.Head()
		c.last.Store(time.Now().UnixNano())
		err := relay.crawl(ctx)
		if ctx.Err() != nil {
			return
		}
		c.cfg.Metrics.requested(err)
		if err != nil {
			wait = guard.RetryIn(failures, err)
			failures++
			lg.Warn("relay did not accept the crawl request", "error", err, "retry_in", wait.Round(time.Second))
			continue
		}
		if failures != 0 || !accepted {
			lg.Info("relay accepted the crawl request", "failures", failures)
		}
		accepted, failures, wait = true, 0, 0
		if c.cfg.Once {
			return
		}
		if !sleep(ctx, requestInterval) || !c.waitForEvent(ctx, head) {
			return
		}
	}
}

// waitForEvent waits for an event after a sequence number. It returns false if the
// context has ended.
func (c *Crawler) waitForEvent(ctx context.Context, after uint64) bool {
	for c.cfg.Log.Head() <= after {
		select {
		case <-c.cfg.Log.Wake(after):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Joined reports a new subscriber; live means that it has no cursor.
func (c *Crawler) Joined(live bool) {
	if !live || time.Since(time.Unix(0, c.last.Load())) > relayWindow {
		return
	}
	select {
	case c.joined <- struct{}{}:
	default:
	}
}

// introduce introduces the account after subscribers have joined.
func (c *Crawler) introduce(ctx context.Context) {
	for {
		select {
		case <-c.joined:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, introDelay) {
			return
		}
		select {
		case <-c.joined: // joined in the meantime
		default:
		}
		if err := c.cfg.Introduce(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Error("introduce account to relays", "error", err)
		}
		if !sleep(ctx, introInterval) {
			return
		}
	}
}

// sleep returns false if the context has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
