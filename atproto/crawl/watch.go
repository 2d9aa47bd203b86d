package crawl

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A relay that accepts requestCrawl may still not carry the account: relays have
// stopped reading hosts for weeks, or marked accounts as inactive, and the firehose does
// not show that. So the state at each relay is queried:
//
//   - com.atproto.sync.getRepoStatus returns whether the account is active there, and
//     the last rev that the relay has read.
//   - com.atproto.sync.getLatestCommit is used if the relay lacks that method or
//     leaves out the rev.
//   - com.atproto.sync.getHostStatus returns why the relay does not read: the host is
//     offline, throttled or banned there.
//
// When the state becomes bad, the relay is asked to crawl again, once, and the account
// is introduced again in the event log: #account makes relays correct a wrong status.
// Nothing is repeated while the state stays the same.

const (
	firstCheck   = 2 * time.Minute  // after the start: relays take some time to connect
	checkCurrent = 10 * time.Minute // between two checks of a relay that is current
	checkOther   = 2 * time.Minute  // between two checks of any other relay, to notice its recovery
)

// Relays returns the state of each relay, in the order of the configuration.
func (c *Crawler) Relays() []RelayStatus {
	if c == nil {
		return nil
	}
	list := make([]RelayStatus, len(c.relays))
	for i, r := range c.relays {
		list[i] = r.state.read()
	}
	return list
}

// Check queries relays once about an account whose last commit is rev.
func Check(ctx context.Context, relays []string, hostname, did, rev string) ([]RelayStatus, error) {
	list := make([]RelayStatus, len(relays))
	var group sync.WaitGroup
	defer group.Wait()
	for i, relay := range relays {
		r, err := newRelayClient(relay, hostname)
		if err != nil {
			return nil, err
		}
		group.Go(func() {
			got, err := r.status(ctx, hostname, did)
			list[i] = r.state.update(rev, got, err, time.Now())
		})
	}
	group.Wait()
	return list, nil
}

// watch queries a relay until the context ends.
func (c *Crawler) watch(ctx context.Context, relay *relayClient) {
	for wait := firstCheck; sleep(ctx, wait+rand.N(wait/4)); {
		c.query(ctx, relay)
		wait = checkCurrent
		if now := relay.state.read(); now.State != StateCurrent || now.Lag > 0 {
			wait = checkOther
		}
	}
}

// Query queries all relays at once and acts on the responses, as Run does from time to
// time.
func (c *Crawler) Query(ctx context.Context) {
	var group sync.WaitGroup
	for _, relay := range c.relays {
		group.Go(func() { c.query(ctx, relay) })
	}
	group.Wait()
}

// query queries a relay. When its state has become bad, it is asked to crawl again.
func (c *Crawler) query(ctx context.Context, relay *relayClient) {
	lg := c.cfg.Logger.With("relay", relay.url.Host)
	before := relay.state.read().State
	did, rev := c.cfg.Commit() // before the query, since the relay may not have later ones yet
	got, err := relay.status(ctx, c.cfg.Hostname, did)
	if ctx.Err() != nil {
		return
	}
	now := relay.state.update(rev, got, err, time.Now())
	c.cfg.Metrics.checked(now)
	switch {
	case now.State == before:
	case now.State != StateCurrent:
		lg.Warn("relay lacks commits of the account", "state", now.State, "reason", now.Reason, "lag", now.Lag.Round(time.Second))
		if now.State != StateUnreachable {
			c.recover(ctx, relay)
		}
	case before != "":
		lg.Info("relay has the commits of the account again")
	}
}

// recover asks a relay to crawl again, and introduces the account.
func (c *Crawler) recover(ctx context.Context, relay *relayClient) {
	err := relay.crawl(ctx)
	c.cfg.Metrics.requested(err)
	if err == nil {
		err = c.cfg.Introduce(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.cfg.Logger.Warn("ask relay to crawl again", "relay", relay.url.Host, "error", err)
	}
}
