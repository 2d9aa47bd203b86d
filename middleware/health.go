package middleware

import (
	"context"
	"time"

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
	Status string `json:"status"` // "ok" or "failing"
	DID    string `json:"did"`
	Rev    string `json:"rev,omitempty"` // of the last commit, if that can be read
}

const (
	statusOK       = "ok"
	statusDegraded = "degraded"
)

// health keeps reasons to itself, since they can name hosts and files: those
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
		h.Hold, h.Status = &holdHealth{Status: "failing", DID: r.account}, statusDegraded
	}
	if r.repo != nil {
		head := r.repo.Head()
		h.Hold = &holdHealth{Status: statusOK, DID: head.DID, Rev: head.Rev}
		if r.repo.Health() != nil {
			h.Hold.Status, h.Status = "failing", statusDegraded
		}
	}
	return h
}
