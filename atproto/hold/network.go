package hold

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/firehose"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// Metrics are the metrics of the firehose and of relays. A nil *Metrics counts
// nothing.
type Metrics struct {
	firehose *firehose.Metrics
	crawl    *crawl.Metrics
}

// NewMetrics returns metrics that are not registered.
func NewMetrics() *Metrics { return &Metrics{firehose.NewMetrics(), crawl.NewMetrics()} }

// Collectors returns what to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return append(m.firehose.Collectors(), m.crawl.Collectors()...)
}

// openNetwork creates the firehose and, unless on localhost, the crawler, which
// asks relays to read it.
func (s *Server) openNetwork(cfg Config) (err error) {
	if cfg.Metrics == nil {
		cfg.Metrics = &Metrics{}
	}
	log := eventLog{cfg.Repo}
	events := firehose.Config{
		Log: log, Now: cfg.Now, Metrics: cfg.Metrics.firehose, Logger: cfg.Logger,
	}
	commit := func() (did, rev string) { h := cfg.Repo.Head(); return h.DID, h.Rev }
	if cfg.MovedTo != nil {
		commit = nil // relays have the commits of the new host
	}
	if len(cfg.Relays) > 0 && !cfg.Local() {
		s.crawler, err = crawl.New(crawl.Config{
			Hostname: cfg.Hostname, Relays: cfg.Relays, Once: cfg.MovedTo != nil, Log: log, Introduce: log.introduce, Commit: commit,
			Metrics: cfg.Metrics.crawl, Logger: cfg.Logger,
		})
		if err != nil {
			return err
		}
		events.Joined = s.crawler.Joined
	}
	s.firehose = firehose.New(events)
	return nil
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
	return s.crawler.Run(ctx)
}

// Relays returns what each relay has of the account.
func (s *Server) Relays() []crawl.RelayStatus { return s.crawler.Relays() }

// needsCrawl reports whether there is something for relays to read. From an
// account that has moved that is only the announcement.
func (s *Server) needsCrawl() bool { return s.crawler != nil && (s.id.MovedTo == nil || s.announced) }

// Writer returns a writer for callers that can wait. While there are relays or
// subscribers it writes no faster than they read.
func (s *Server) Writer() *repo.Paced { return s.repo.Paced(s.hasReaders) }

// hasReaders reports whether anybody reads the firehose. Configured relays count
// even while they are disconnected.
func (s *Server) hasReaders() bool { return s.crawler != nil || s.firehose.Subscribers() > 0 }

// Shutdown closes the connections of subscribers, which the HTTP server does not
// track any more. It takes at most a few seconds and may be called twice.
func (s *Server) Shutdown(ctx context.Context) error { return s.firehose.Shutdown(ctx) }

// eventLog is the event log of the repo as the firehose reads it.
type eventLog struct{ *repo.Repo }

func (l eventLog) Head() uint64 { return l.Repo.Head().Seq }

func (l eventLog) Lost() (uint64, error) { return l.DroppedEvents() }

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
