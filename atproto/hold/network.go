package hold

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/firehose"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// Metrics tells how the hold does with the network. A nil *Metrics is silent.
type Metrics struct {
	firehose *firehose.Metrics
	crawl    *crawl.Metrics
}

func NewMetrics() *Metrics { return &Metrics{firehose.NewMetrics(), crawl.NewMetrics()} }

// Collectors are what to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return append(m.firehose.Collectors(), m.crawl.Collectors()...)
}

// openNetwork makes the firehose and, for a hold that others can reach, what
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
		commit = nil // relays have the account from its new host
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

// Run asks relays to crawl the hold, and looks whether its DID document shows
// its key, until the context ends. Of an account that has moved away relays have
// nothing to read but that, so they are asked once, when it is told.
func (s *Server) Run(ctx context.Context) error {
	if s.own != nil {
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() { s.watchIdentity(ctx) })
	}
	if !s.settled(ctx) || !s.asks() {
		<-ctx.Done()
		return nil
	}
	return s.crawler.Run(ctx)
}

// Relays returns what each relay has of the account.
func (s *Server) Relays() []crawl.RelayStatus { return s.crawler.Relays() }

// asks says whether relays have something to come for.
func (s *Server) asks() bool { return s.crawler != nil && (s.id.MovedTo == nil || s.told) }

// Writer writes to the repository for those who can wait: no faster than relays
// read while there is a relay or a subscriber, as fast as it can otherwise.
func (s *Server) Writer() *repo.Paced { return s.repo.Paced(s.isRead) }

// isRead says whether anybody reads what is written as it comes. A relay may be
// away for a moment.
func (s *Server) isRead() bool { return s.crawler != nil || s.firehose.Subscribers() > 0 }

// Shutdown ends the streams of subscribers, which the HTTP server around a
// Server knows nothing of. It takes a few seconds at most and may be called
// twice.
func (s *Server) Shutdown(ctx context.Context) error { return s.firehose.Shutdown(ctx) }
