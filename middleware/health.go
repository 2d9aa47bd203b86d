package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier"
)

// Health is the response of /tidings/api/v1/health.
type Health struct {
	Status  string                `json:"status"`            // "ok" or "degraded"
	Reasons []string              `json:"reasons,omitempty"` // why it is degraded, except for the reasons in sinks, redis, hold and appview
	Sinks   []notifier.SinkHealth `json:"sinks"`
	Redis   *RedisHealth          `json:"redis,omitempty"`   // with redis:
	Hold    *HoldHealth           `json:"hold,omitempty"`    // with hold:
	Account *AccountHealth        `json:"account,omitempty"` // with account:
	Remote  *RemoteHealth         `json:"remote,omitempty"`  // with remote:
	AppView *AppViewHealth        `json:"appview,omitempty"` // with announce.appview
	Stats   *StatsHealth          `json:"stats,omitempty"`   // with stats.records
	Clock   *ClockHealth          `json:"clock,omitempty"`   // if the system clock has jumped since the start
	Repair  string                `json:"repair,omitempty"`  // phase of a repair of records and ledger; missing: none is requested or running
}

// ClockHealth is the last jump of the system clock.
type ClockHealth struct {
	Jumped string    `json:"jumped"` // by how much, such as "+8760h0m0s"
	At     time.Time `json:"at"`     // by the clock after it
}

// RedisHealth is the state of the counts in Redis.
type RedisHealth struct {
	Status   string    `json:"status"`             // "ok", "away" (does not answer) or "behind" (lacks counts)
	Reason   string    `json:"reason,omitempty"`   // why it is not ok
	Current  time.Time `json:"current,omitzero"`   // when it last had all counts; only with the token
	Warnings []string  `json:"warnings,omitempty"` // why it may lose counts
}

// HoldHealth is the state of the account of a hold.
type HoldHealth struct {
	Status  string `json:"status"`           // "ok", "moved" or "failing"
	Reason  string `json:"reason,omitempty"` // why it is failing
	DID     string `json:"did"`
	Rev     string `json:"rev,omitempty"`     // of the last commit, if it can be read
	MovedTo string `json:"movedTo,omitempty"` // the new host, from moved_to; records and posts stay pending

	Relays []RelayHealth `json:"relays,omitempty"` // with hold.relays
}

// RelayHealth is the state of the account on a relay.
type RelayHealth struct {
	Relay  string      `json:"relay"`                // host
	State  crawl.State `json:"state,omitempty"`      // missing until the relay was asked
	Lag    int         `json:"lagSeconds,omitempty"` // age of the oldest commit that the relay lacks
	Reason string      `json:"reason,omitempty"`     // why it is not current; only with the token
}

// AppViewHealth is the state of the account's posts at the AppView.
type AppViewHealth struct {
	Host    string        `json:"host"`
	State   appview.State `json:"state,omitempty"`        // missing until the AppView was asked
	Missing int           `json:"missing,omitempty"`      // posts that it did not have 10 minutes after they were written
	Delay   int           `json:"delaySeconds,omitempty"` // until the last indexed post was seen there
	Reason  string        `json:"reason,omitempty"`       // why it is not current; only with the token
}

const (
	statusOK       = "ok"
	statusDegraded = "degraded"
)

// journalMinFree is the free disk space, in bytes, below which the journal's next
// write may fail: it allocates 256 KiB at a time.
const journalMinFree = 512 << 10

// health returns the health report. It has no error texts, since those can name hosts
// and files; they are in the log. all includes details about private repositories.
func (r *runtime) health(ctx context.Context, all bool) any { return r.report(ctx, all) }

func (r *runtime) report(_ context.Context, all bool) Health {
	h := Health{Status: statusOK, Sinks: r.notifier.Health()}
	if slices.ContainsFunc(h.Sinks, func(s notifier.SinkHealth) bool { return s.ByOperator }) {
		h.Status = statusDegraded // sinks has the reason
	}
	if !all {
		for i := range h.Sinks {
			h.Sinks[i].Backlog = nil
		}
	}
	if jump, ok := r.notifier.Jumped(); ok {
		by := jump.By.Round(time.Second).String()
		if jump.By > 0 {
			by = "+" + by
		}
		h.Clock = &ClockHealth{Jumped: by, At: jump.At}
	}
	if s := r.counter.Status(); s.Redis {
		h.Redis = &RedisHealth{Status: statusOK, Reason: s.Reason, Warnings: s.Warnings}
		if all {
			h.Redis.Current = s.Current
		}
		switch {
		case s.Unreachable:
			h.Redis.Status = "away"
		case s.Reason != "":
			h.Redis.Status = "behind"
		}
		if s.Reason != "" || len(s.Warnings) > 0 {
			h.Status = statusDegraded
		}
	}
	if err := r.state.Health(); err != nil {
		h.Status, h.Reasons = statusDegraded, append(h.Reasons, r.stateProblem(err))
	}
	if r.journalDiskFull() {
		h.Status, h.Reasons = statusDegraded, append(h.Reasons, "the disk of the journal is full: pushes are refused; pulls are served and may not be counted")
	}
	if phase, err := r.notifier.Stores().Repair(); err == nil { // an error is in the state's health
		h.Repair = phase
	}
	if r.pds != nil {
		h.addAccount(r.pds, r.notifier.PendingWrites(), all)
	}
	if r.remote != nil {
		h.addRemote(r.remote.Status(), r.account, all)
	}
	if s, ok := r.appview.Status(); ok {
		h.addAppView(s, all)
	}
	if r.stats != nil && r.options.Stats.Records != 0 {
		h.addStats(r.stats.Status())
	}
	open := r.openedHold()
	if open == nil && r.broken != nil {
		h.Hold, h.Status = r.brokenHealth(), statusDegraded
	}
	if open != nil {
		h.Hold = open.holdHealth()
		h.addRelays(open.network.Relays(), all)
		if pending := h.Hold.Status == "moved" && len(r.options.Public) > 0; pending || h.Hold.Status == "failing" {
			h.Status = statusDegraded
		}
	}
	return h
}

// stateProblem describes an error of the state for the public.
func (r *runtime) stateProblem(err error) string {
	switch {
	case errors.Is(err, store.ErrStopped):
		return "a write of the counters failed: counting and publishing are paused until a restart on a working disk"
	case errors.Is(err, store.ErrNoSpace):
		return fmt.Sprintf("less than %s of disk space is free (option reserve): counting and publishing are paused", r.options.Reserve)
	}
	return "the counters' database cannot write its files; the log has the reason"
}

// openedHold returns the runtime that has the hold open: r, or that of a hold that was
// opened later; nil if the hold is not open.
func (r *runtime) openedHold() *runtime {
	if r.deferred != nil {
		return r.deferred.opened.Load()
	}
	if r.repo == nil {
		return nil
	}
	return r
}

func (r *runtime) brokenHealth() *HoldHealth {
	reason := "it cannot be opened"
	if r.deferred != nil {
		reason += ": " + diskProblem(r.broken.Reason())
	}
	return &HoldHealth{Status: "failing", Reason: reason, DID: r.account}
}

func (r *runtime) holdHealth() *HoldHealth {
	head, err := r.repo.Head(), r.repo.Health()
	h := &HoldHealth{Status: statusOK, DID: head.DID, Rev: head.Rev}
	switch moved := r.options.Hold.MovedTo; {
	case moved != nil && errors.Is(err, repo.ErrDeactivated):
		h.Status, h.MovedTo = "moved", moved.Service
	case err != nil:
		h.Status, h.Reason = "failing", publicReason(err)
	}
	return h
}

// addRelays adds the state of the account on each relay. A relay that is known to lack
// commits degrades the health.
func (h *Health) addRelays(relays []crawl.RelayStatus, all bool) {
	for _, s := range relays {
		relay := RelayHealth{Relay: s.Relay, State: s.State, Lag: int(s.Lag.Seconds())}
		if all {
			relay.Reason = s.Reason // it can name addresses
		}
		if s.State != "" && s.State != crawl.StateCurrent {
			h.Status = statusDegraded
		}
		h.Hold.Relays = append(h.Hold.Relays, relay)
	}
}

// addAppView adds the state of the account's posts at the AppView. Posts that are not
// indexed degrade the health.
func (h *Health) addAppView(s appview.Status, all bool) {
	h.AppView = &AppViewHealth{Host: s.AppView, State: s.State, Missing: s.Missing, Delay: int(s.Delay.Seconds())}
	if all {
		h.AppView.Reason = s.Reason // it can name addresses
	}
	if s.State != "" && s.State != appview.StateCurrent {
		h.Status = statusDegraded
	}
}

// publicReason describes an error of the repo for the public.
func publicReason(err error) string {
	for _, known := range []error{repo.ErrNoSpace, repo.ErrStopped, repo.ErrClock, repo.ErrSuspended} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the log has the reason"
}
