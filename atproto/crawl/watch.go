package crawl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// A relay that accepts requestCrawl may still not carry the account: relays have
// frozen hosts for weeks, and held accounts for inactive, without any sign on the
// firehose. So each relay is asked what it has:
//
//   - com.atproto.sync.getRepoStatus tells whether it takes the account for
//     active, and the last rev that it has read.
//   - A relay without that method, or that leaves out the rev, is asked for
//     com.atproto.sync.getLatestCommit.
//   - com.atproto.sync.getHostStatus tells why it does not read: the host is
//     offline, throttled or banned there.
//
// When a relay changes to a bad state it is asked to crawl again, once, and the
// account is introduced again in the event log: #account makes relays drop a
// wrong status. Nothing else is repeated for as long as the state stays.

const (
	watchFirst  = 2 * time.Minute  // after the start: a relay needs a moment to connect
	watchEvery  = 10 * time.Minute // between two questions to a relay that is current
	watchSoon   = 2 * time.Minute  // between two questions to one that is not, so that it is seen to recover
	lagAllowed  = 5 * time.Minute  // before a relay counts as lagging
	maxStatus   = 16 << 10         // bytes of an answer
	unreachable = 3                // failures in a row after which a relay counts as unreachable
)

// State is what a relay has of the account.
type State string

const (
	StateCurrent     State = "current"     // all commits, or all but those of the last minutes
	StateLagging     State = "lagging"     // not the commits since Relay.Since
	StateInactive    State = "inactive"    // it takes the account for inactive
	StateUnknown     State = "unknown"     // it has never heard of the account
	StateUnreachable State = "unreachable" // it does not answer
)

// RelayStatus is what is known of one relay.
type RelayStatus struct {
	Relay  string        // host
	State  State         // "" until it was asked
	Reason string        // what the relay says, if it is not current
	Lag    time.Duration // age of the oldest commit that it is known to miss
}

// watched is what is known of one relay.
type watched struct {
	mu       sync.Mutex
	status   RelayStatus
	missing  string // rev of the oldest commit that the relay is known to miss; "": none
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

// Check asks relays once what they have of an account, whose last commit is rev.
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

// watch asks a relay what it has until the context ends.
func (c *Crawler) watch(ctx context.Context, relay *asked) {
	lg := c.cfg.Logger.With("relay", relay.url.Host)
	for wait := watchFirst; sleep(ctx, wait+rand.N(wait/4)); {
		before := relay.watched.read().State
		did, rev := c.cfg.Commit() // before the relay is asked: what comes meanwhile is not missing
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
				lg.Info("relay has the account's commits again")
			}
			continue
		}
		lg.Warn("relay does not have the account's commits", "state", now.State, "reason", now.Reason, "lag", now.Lag.Round(time.Second))
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
		c.cfg.Logger.Warn("ask a relay to read the account again", "relay", relay.url.Host, "error", err)
	}
}

// found is what a relay answered.
type found struct {
	known  bool   // it has the account
	active bool   // and takes it for active
	status string // why not, such as "deactivated"
	rev    string // of the last commit that it has; "": it does not say
	host   string // how it sees this host, such as "banned"; "": it does not say, or as it should
}

// update takes in an answer. rev was the account's when the relay was asked.
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
		s.State, s.Reason = StateUnknown, "it has never read this account"
	case !got.active:
		s.State, s.Reason = StateInactive, "it takes the account for "+got.status
	case s.Lag > lagAllowed:
		s.State, s.Reason = StateLagging, fmt.Sprintf("it does not have the commits since %s", now.Add(-s.Lag).UTC().Format(time.RFC3339))
	}
	if s.State != StateCurrent && got.host != "" {
		s.Reason += "; the status of this host there is " + got.host
	}
	return *s
}

// status asks the relay what it has of an account.
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
		got.active, got.status, got.rev = repo.Active, printable(repo.Status), repo.Rev
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
			got.host = printable(host.Status)
		}
	}
	return got, nil
}

// unknownRepo reports whether a relay answered that it has no such account, or
// no commit of it.
func unknownRepo(err error) bool {
	var no *answerError
	return errors.As(err, &no) && (no.name == "RepoNotFound" || no.name == "AccountNotFound" || no.name == "RepoNotSynchronized")
}

// inactiveRepo returns the status of an account that a relay takes for inactive, as
// in the error RepoDeactivated; "" if that is not what it answered.
func inactiveRepo(err error) string {
	var no *answerError
	if !errors.As(err, &no) {
		return ""
	}
	status, found := strings.CutPrefix(no.name, "Repo")
	switch status = strings.ToLower(status); status {
	case "deactivated", "takendown", "suspended", "deleted", "inactive":
		if found {
			return status
		}
	}
	return ""
}

// unknownMethod reports whether a relay does not serve a method.
func unknownMethod(err error) bool {
	var no *answerError
	if !errors.As(err, &no) {
		return false
	}
	return no.status == http.StatusNotFound || no.status == http.StatusMethodNotAllowed || no.status == http.StatusNotImplemented ||
		no.name == "MethodNotImplemented" || no.status == http.StatusBadRequest && no.name == "InvalidRequest"
}

// get makes a query and decodes its answer.
func (a *asked) get(ctx context.Context, nsid string, query url.Values, out any) error {
	u := a.url.JoinPath("xrpc", nsid)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tidings")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return newAnswerError(resp, content)
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("%s: invalid answer: %w", nsid, err)
	}
	return nil
}
