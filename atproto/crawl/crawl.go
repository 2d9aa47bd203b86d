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
	delay   = 5 * time.Second  // until our own port is open: a relay connects back
	silence = 20 * time.Minute // between two requests to a relay that accepted

	window = 10 * time.Minute // after a request, in which a new subscriber may be a relay
	gather = time.Second      // in which new subscribers share an introduction
	pause  = time.Minute      // between two introductions
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
	Once     bool // do not ask a relay again that has accepted

	// Introduce logs #identity, #account and #sync.
	Introduce func(context.Context) error

	// Commit returns the account's DID and the rev of its last commit; nil: relays
	// are not asked for their state.
	Commit func() (did, rev string)

	Metrics *Metrics     // nil: silent
	Logger  *slog.Logger // nil: silent
}

// Crawler asks relays to crawl, while Run runs.
type Crawler struct {
	cfg    Config
	relays []*asked
	joined chan struct{}
	last   atomic.Int64 // when a relay was asked last, unix nanoseconds
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
		a, err := newAsked(relay, cfg.Hostname)
		if err != nil {
			return nil, fmt.Errorf("crawl: %w", err)
		}
		c.relays = append(c.relays, a)
	}
	return c, nil
}

// Run asks all relays, each independently, until the context ends.
func (c *Crawler) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, relay := range c.relays {
		group.Go(func() { c.ask(ctx, relay) })
		if c.cfg.Commit != nil {
			group.Go(func() { c.watch(ctx, relay) })
		}
	}
	group.Go(func() { c.introduce(ctx) })
	group.Wait()
	return nil
}

// ask asks one relay: soon, again after a failure, and at the first new event after a
// silence.
func (c *Crawler) ask(ctx context.Context, relay *asked) {
	lg := c.cfg.Logger.With("relay", relay.url.Host)
	accepted, failures := false, 0
	for wait := delay; sleep(ctx, wait); {
		head := c.cfg.Log.Head()
		c.last.Store(time.Now().UnixNano())
		err := relay.crawl(ctx)
		if ctx.Err() != nil {
			return
		}
		c.cfg.Metrics.asked(err)
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
		if !sleep(ctx, silence) {
			return
		}
		if !c.waitForEvent(ctx, head) {
			return
		}
	}
}

// waitForEvent waits for an event after a sequence number.
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
	if !live || time.Since(time.Unix(0, c.last.Load())) > window {
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
		if !sleep(ctx, gather) {
			return
		}
		select {
		case <-c.joined: // also connected by now
		default:
		}
		if err := c.cfg.Introduce(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Error("introduce account to relays", "error", err)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// sleep waits, and reports false if the context has ended.
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
