package crawl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// A relay that accepts requestCrawl may still not carry the account: relays have
// stopped reading hosts for weeks, and marked accounts as inactive, without a sign on
// the firehose. So the state at each relay is queried:
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
	watchFirst  = 2 * time.Minute  // after the start: relays take a moment to connect
	watchEvery  = 10 * time.Minute // between two queries of a relay that is current
	watchSoon   = 2 * time.Minute  // between two queries of another one, to notice its recovery
	lagAllowed  = 5 * time.Minute  // before a relay counts as lagging
	maxStatus   = 16 << 10         // bytes of an answer
	unreachable = 3                // failures in a row after which a relay counts as unreachable
)

// State is the state of the account at a relay.
type State string

const (
	StateCurrent     State = "current"     // it has all commits, or all but those of the last minutes
	StateLagging     State = "lagging"     // it lacks commits that are older than a few minutes
	StateInactive    State = "inactive"    // the account is inactive there
	StateUnknown     State = "unknown"     // it does not know the account
	StateUnreachable State = "unreachable" // it does not answer
)

// RelayStatus is the state of one relay.
type RelayStatus struct {
	Relay  string        // host
	State  State         // "" before the first query
	Reason string        // why it is not current
	Lag    time.Duration // age of the oldest commit that it is known to lack
}

// watched is the known state of one relay.
type watched struct {
	mu       sync.Mutex
	status   RelayStatus
	missing  string // rev of the oldest commit that the relay is known to lack; "": none
	failures int    // in a row
}

// Relays returns the state of each relay, in the order of the configuration.
func (c *Crawler) Relays() []RelayStatus {
	if c == nil {
		return nil
	}
	list := make([]RelayStatus, len(c.relays))
	for i, r := range c.relays {
		list[i] = r.watched.read()
	}
	return list
}

// Check queries relays once about an account whose last commit is rev.
func Check(ctx context.Context, relays []string, hostname, did, rev string) ([]RelayStatus, error) {
	list := make([]RelayStatus, len(relays))
	var group sync.WaitGroup
	defer group.Wait()
	for i, relay := range relays {
		a, err := newAsked(relay, hostname)
		if err != nil {
			return nil, err
		}
		group.Go(func() {
			got, err := a.status(ctx, hostname, did)
			list[i] = a.watched.update(rev, got, err, time.Now())
		})
	}
	group.Wait()
	return list, nil
}

func (w *watched) read() RelayStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// watch queries a relay until the context ends.
func (c *Crawler) watch(ctx context.Context, relay *asked) {
	lg := c.cfg.Logger.With("relay", relay.url.Host)
	for wait := watchFirst; sleep(ctx, wait+rand.N(wait/4)); {
		before := relay.watched.read().State
		did, rev := c.cfg.Commit() // before the query, which later commits may miss
		got, err := relay.status(ctx, c.cfg.Hostname, did)
		if ctx.Err() != nil {
			return
		}
		now := relay.watched.update(rev, got, err, time.Now())
		c.cfg.Metrics.watched(now)
		wait = watchEvery
		if now.State != StateCurrent || now.Lag > 0 {
			wait = watchSoon
		}
		if now.State == before {
			continue
		}
		if now.State == StateCurrent {
			if before != "" {
				lg.Info("relay has the commits of the account again")
			}
			continue
		}
		lg.Warn("relay lacks commits of the account", "state", now.State, "reason", now.Reason, "lag", now.Lag.Round(time.Second))
		if now.State != StateUnreachable {
			c.recover(ctx, relay)
		}
	}
}

// recover asks a relay to crawl again, and introduces the account.
func (c *Crawler) recover(ctx context.Context, relay *asked) {
	err := relay.crawl(ctx)
	c.cfg.Metrics.asked(err)
	if err == nil {
		err = c.cfg.Introduce(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.cfg.Logger.Warn("ask relay to crawl again", "relay", relay.url.Host, "error", err)
	}
}

// found is the answer of a relay.
type found struct {
	known  bool   // it knows the account
	active bool   // the account is active there
	status string // if not active, such as "deactivated"
	rev    string // of its last commit; "": not in the answer
	host   string // status of this host if not active or idle, such as "banned"
}

// update applies an answer. rev was the account's before the query.
func (w *watched) update(rev string, got found, err error, now time.Time) RelayStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.status
	if err != nil {
		if w.failures++; w.failures >= unreachable || s.State == "" {
			s.State, s.Reason = StateUnreachable, err.Error()
		}
		return *s
	}
	w.failures = 0
	switch {
	case got.rev == "":
	case got.rev >= rev:
		w.missing = ""
	case w.missing == "" || got.rev >= w.missing:
		w.missing = rev
	}
	s.Lag = 0
	if at, err := syntax.ParseTID(w.missing); err == nil {
		s.Lag = max(0, now.Sub(at.Time()))
	}
	s.State, s.Reason = StateCurrent, ""
	switch {
	case !got.known:
		s.State, s.Reason = StateUnknown, "it does not know the account"
	case !got.active:
		s.State, s.Reason = StateInactive, "the account's status there is "+got.status
	case s.Lag > lagAllowed:
		s.State, s.Reason = StateLagging, fmt.Sprintf("it lacks the commits since %s", now.Add(-s.Lag).UTC().Format(time.RFC3339))
	}
	if s.State != StateCurrent && got.host != "" {
		s.Reason += "; the status of this host there is " + got.host
	}
	return *s
}

// status queries the relay about an account.
func (a *asked) status(ctx context.Context, hostname, did string) (found, error) {
	var repo struct {
		Active bool   `json:"active"`
		Status string `json:"status"`
		Rev    string `json:"rev"`
	}
	got := found{known: true, active: true}
	err := a.get(ctx, "com.atproto.sync.getRepoStatus", url.Values{"did": {did}}, &repo)
	switch {
	case unknownRepo(err):
		got.known = false
	case err == nil:
		got.active, got.status, got.rev = repo.Active, guard.Printable(repo.Status), repo.Rev
		if !got.active && got.status == "" {
			got.status = "inactive"
		}
	case !unknownMethod(err):
		return got, err
	}
	if got.known && got.active && got.rev == "" {
		var commit struct {
			Rev string `json:"rev"`
		}
		err := a.get(ctx, "com.atproto.sync.getLatestCommit", url.Values{"did": {did}}, &commit)
		switch {
		case unknownRepo(err):
			got.known = false
		case inactiveRepo(err) != "":
			got.active, got.status = false, inactiveRepo(err)
		case err != nil && !unknownMethod(err):
			return got, err
		}
		got.rev = commit.Rev
	}
	var host struct {
		Status string `json:"status"`
	}
	if err := a.get(ctx, "com.atproto.sync.getHostStatus", url.Values{"hostname": {hostname}}, &host); err == nil {
		switch host.Status {
		case "", "active", "idle":
		default:
			got.host = guard.Printable(host.Status)
		}
	}
	return got, nil
}

// unknownRepo reports whether a relay does not know the account, or has no commit of
// it.
func unknownRepo(err error) bool {
	var no *guard.Error
	return errors.As(err, &no) && (no.Name == "RepoNotFound" || no.Name == "AccountNotFound" || no.Name == "RepoNotSynchronized")
}

// inactiveRepo returns the status in an error such as RepoDeactivated, "" for other
// errors.
func inactiveRepo(err error) string {
	var no *guard.Error
	if !errors.As(err, &no) {
		return ""
	}
	status, found := strings.CutPrefix(no.Name, "Repo")
	switch status = strings.ToLower(status); status {
	case "deactivated", "takendown", "suspended", "deleted", "inactive":
		if found {
			return status
		}
	}
	return ""
}

// unknownMethod reports whether a relay does not support a method.
func unknownMethod(err error) bool {
	var no *guard.Error
	if !errors.As(err, &no) {
		return false
	}
	return no.Status == http.StatusNotFound || no.Status == http.StatusMethodNotAllowed || no.Status == http.StatusNotImplemented ||
		no.Name == "MethodNotImplemented" || no.Status == http.StatusBadRequest && no.Name == "InvalidRequest"
}

// get sends a query and decodes the answer.
func (a *asked) get(ctx context.Context, nsid string, query url.Values, out any) error {
	return guard.Query(ctx, a.client, a.url, nsid, query, maxStatus, out)
}
