package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier"
)

// health is what /tidings/api/v1/health shows to everybody.
type health struct {
	Status string                `json:"status"` // "ok" or "degraded"
	Sinks  []notifier.SinkHealth `json:"sinks"`
	Redis  *redisHealth          `json:"redis,omitempty"` // with redis:
	Hold   *holdHealth           `json:"hold,omitempty"`  // with hold:
}

type redisHealth struct {
	Status   string    `json:"status"`             // "ok" or "away"
	Current  time.Time `json:"current,omitzero"`   // when it last had all numbers
	Warnings []string  `json:"warnings,omitempty"` // why it may forget
}

type holdHealth struct {
	Status  string `json:"status"`           // "ok", "moved" or "failing"
	Reason  string `json:"reason,omitempty"` // why it is failing
	DID     string `json:"did"`
	Rev     string `json:"rev,omitempty"`     // of the last commit, if that can be read
	MovedTo string `json:"movedTo,omitempty"` // where the account is, by moved_to; records and posts wait
}

const (
	statusOK       = "ok"
	statusDegraded = "degraded"
)

// health keeps errors to itself, since they can name hosts and files: those
// are in the log.
func (r *runtime) health(context.Context) any {
	h := health{Status: statusOK, Sinks: r.notifier.Health()}
	if s := r.counter.Status(); s.Redis {
		h.Redis = &redisHealth{Status: statusOK, Current: s.Current, Warnings: s.Warnings}
		if s.Error != "" {
			h.Redis.Status = "away"
		}
		if s.Error != "" || len(s.Warnings) > 0 {
			h.Status = statusDegraded
		}
	}
	if r.broken != nil {
		h.Hold, h.Status = &holdHealth{Status: "failing", Reason: "it can't be opened", DID: r.account}, statusDegraded
	}
	if r.repo != nil {
		h.Hold = r.holdHealth()
		if waits := h.Hold.Status == "moved" && len(r.options.Public) > 0; waits || h.Hold.Status == "failing" {
			h.Status = statusDegraded
		}
	}
	return h
}

func (r *runtime) holdHealth() *holdHealth {
	head, err := r.repo.Head(), r.repo.Health()
	h := &holdHealth{Status: statusOK, DID: head.DID, Rev: head.Rev}
	switch moved := r.options.Hold.MovedTo; {
	case moved != nil && errors.Is(err, repo.ErrDeactivated):
		h.Status, h.MovedTo = "moved", moved.Service
	case err != nil:
		h.Status, h.Reason = "failing", reason(err)
	}
	return h
}

// reason is as much of an error as everybody may know.
func reason(err error) string {
	for _, known := range []error{repo.ErrNoSpace, repo.ErrStopped, repo.ErrClock, repo.ErrSuspended} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the log says why"
}
