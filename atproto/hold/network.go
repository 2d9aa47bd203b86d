package hold

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/firehose"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/batch"
)

// Metrics are the metrics of the firehose, of relays, and of calls with service tokens. A
// nil *Metrics counts nothing.
type Metrics struct {
	firehose *firehose.Metrics
	crawl    *crawl.Metrics
	callers  *auth.CallerMetrics
}

// NewMetrics returns metrics that are not registered.
func NewMetrics() *Metrics {
	return &Metrics{firehose.NewMetrics(), crawl.NewMetrics(), auth.NewCallerMetrics()}
}

// Collectors returns the collectors to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return slices.Concat(m.firehose.Collectors(), m.crawl.Collectors(), m.callers.Collectors())
}

// NetworkConfig configures a Network. Identity and Repo are required.
type NetworkConfig struct {
	identity.Identity
	Repo *repo.Repo

	Relays  []string         // relays to ask for a crawl, https://host; ignored on localhost
	Metrics *Metrics         // nil: none
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
}

// Network is the network's view of a repo: the firehose, and the relays that are
// asked to read it.
type Network struct {
	repo     *repo.Repo
	metrics  *Metrics
	firehose *firehose.Firehose
	crawler  *crawl.Crawler // nil: no relays
}

// NewNetwork returns a Network. Server.Run makes it active.
func NewNetwork(cfg NetworkConfig) (*Network, error) {
	if cfg.Metrics == nil {
		cfg.Metrics = &Metrics{}
	}
	n, log := &Network{repo: cfg.Repo, metrics: cfg.Metrics}, eventLog{cfg.Repo}
	events := firehose.Config{
		Log: log, Now: cfg.Now, Metrics: cfg.Metrics.firehose, Logger: cfg.Logger,
	}
	commit := func() (did, rev string) { h := cfg.Repo.Head(); return h.DID, h.Rev }
	if cfg.MovedTo != nil {
		commit = nil // relays have the commits of the new host
	}
	if len(cfg.Relays) > 0 && !cfg.Local() {
		var err error
		n.crawler, err = crawl.New(crawl.Config{
			Hostname: cfg.Hostname, Relays: cfg.Relays, Once: cfg.MovedTo != nil, Log: log, Introduce: log.introduce, Commit: commit,
			Metrics: cfg.Metrics.crawl, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, fmt.Errorf("hold: %w", err)
		}
		events.Joined = n.crawler.Joined
	}
	n.firehose = firehose.New(events)
	return n, nil
}

// Relays returns the state of the account at each relay.
func (n *Network) Relays() []crawl.RelayStatus { return n.crawler.Relays() }

// Writer returns a writer for callers that can wait. While there are relays or
// subscribers it writes no faster than they read.
func (n *Network) Writer() *batch.Writer { return batch.New(n.repo, n.delay) }

// delay returns how long the next commit should be delayed.
func (n *Network) delay() time.Duration {
	if !n.hasReaders() {
		return 0
	}
	return n.repo.Delay()
}

// hasReaders reports whether the firehose has readers. Configured relays count
// even while they are disconnected.
func (n *Network) hasReaders() bool { return n.crawler != nil || n.firehose.Subscribers() > 0 }

// Shutdown closes the connections of subscribers, which the HTTP server does not
// track any more. It takes at most a few seconds and may be called twice.
func (n *Network) Shutdown(ctx context.Context) error { return n.firehose.Shutdown(ctx) }

// eventLog is the event log of the repo as the firehose reads it.
type eventLog struct{ *repo.Repo }

func (l eventLog) Head() uint64 { return l.Repo.Head().Seq }

func (l eventLog) Dropped() (uint64, error) { return l.DroppedEvents() }

func (l eventLog) Events(after uint64, limit int) ([]firehose.Event, error) {
	page, err := l.Repo.Events(after, limit)
	if err != nil {
		return nil, err
	}
	events := make([]firehose.Event, len(page))
	for i, e := range page {
		events[i] = firehose.Event(e)
	}
	return events, nil
}

// introduce appends the events that a relay needs which does not know the account.
func (l eventLog) introduce(ctx context.Context) error {
	if l.MovedTo() != "" {
		return l.Notify(ctx, repo.Identity, repo.Deactivated)
	}
	return l.Notify(ctx, repo.Identity, repo.Account, repo.Sync)
}
