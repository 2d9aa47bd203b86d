package auth

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// CallerMetrics are the metrics of Callers. A nil *CallerMetrics counts nothing.
type CallerMetrics struct {
	calls       *prometheus.CounterVec
	resolutions *prometheus.CounterVec
}

// Outcomes of a fetch of an unlisted account's DID document.
const (
	resolutionDone    = "resolved"
	resolutionFailed  = "failed"
	resolutionLimited = "limited"
)

// NewCallerMetrics returns metrics that are not registered.
func NewCallerMetrics() *CallerMetrics {
	m := &CallerMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_notify_calls_total",
			Help: "Calls of other accounts with a service token: accepted, unauthorized (401), forbidden (403), limited (429), invalid (other 4xx), failed (5xx).",
		}, []string{"outcome"}),
		resolutions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_notify_resolutions_total",
			Help: "DID documents of callers that are not configured: resolved, failed, limited (not fetched).",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{"accepted", "unauthorized", "forbidden", "limited", "invalid", "failed"} {
		m.calls.WithLabelValues(outcome)
	}
	for _, outcome := range []string{resolutionDone, resolutionFailed, resolutionLimited} {
		m.resolutions.WithLabelValues(outcome)
	}
	return m
}

// Collectors returns the collectors to register.
func (m *CallerMetrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.resolutions}
}

// Called counts a call that ended with err; nil means that it was accepted.
func (m *CallerMetrics) Called(err error) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(outcomeOf(err)).Inc()
}

func outcomeOf(err error) string {
	var known *xrpc.Error
	switch {
	case err == nil:
		return "accepted"
	case !errors.As(err, &known) || known.Status >= http.StatusInternalServerError:
		return "failed"
	case known.Status == http.StatusUnauthorized:
		return "unauthorized"
	case known.Status == http.StatusForbidden:
		return "forbidden"
	case known.Status == http.StatusTooManyRequests:
		return "limited"
	}
	return "invalid"
}

func (m *CallerMetrics) resolved(outcome string) {
	if m == nil {
		return
	}
	m.resolutions.WithLabelValues(outcome).Inc()
}
