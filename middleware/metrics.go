package middleware

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests that failed. A nil *Metrics counts nothing.
type Metrics struct {
	failed   *prometheus.CounterVec
	busy     prometheus.Counter
	panicked prometheus.Counter
}

// NewMetrics returns metrics and registers them if registerer is not nil. If they are
// already registered it returns those, so that all Handlers of a process share them.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_requests_unrecorded_total",
			Help: "Pushes and deletes that were answered 503 because they could not be recorded.",
		}, []string{"operation"}),
		busy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_http_turned_away_total",
			Help: "Requests for our own routes that were answered 503 because too many were running.",
		}),
		panicked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_http_panics_total",
			Help: "Requests for our own routes whose handler panicked.",
		}),
	}
	if registerer != nil {
		m.failed = registered(registerer, m.failed)
		m.busy = registered(registerer, m.busy)
		m.panicked = registered(registerer, m.panicked)
	}
	m.failed.WithLabelValues("push")
	m.failed.WithLabelValues("delete")
	return m
}

// registered registers c, and returns c or the same collector if one is registered.
func registered[C prometheus.Collector](registerer prometheus.Registerer, c C) C {
	var already prometheus.AlreadyRegisteredError
	if errors.As(registerer.Register(c), &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

func (m *Metrics) unrecorded(operation string) {
	if m != nil {
		m.failed.WithLabelValues(operation).Inc()
	}
}

func (m *Metrics) tooMany() {
	if m != nil {
		m.busy.Inc()
	}
}

func (m *Metrics) panic() {
	if m != nil {
		m.panicked.Inc()
	}
}
