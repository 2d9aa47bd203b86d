package middleware

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what went wrong on the way of a request. A nil *Metrics is
// silent.
type Metrics struct {
	failed   *prometheus.CounterVec
	turned   prometheus.Counter
	panicked prometheus.Counter
}

// NewMetrics makes the metrics and registers them, if registerer is not nil.
// Registered again, they are the ones that are there: the numbers are the
// process's.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_requests_unrecorded_total",
			Help: "Pushes and deletes that were answered 503 because they could not be recorded.",
		}, []string{"operation"}),
		turned: prometheus.NewCounter(prometheus.CounterOpts{
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
		m.turned = registered(registerer, m.turned)
		m.panicked = registered(registerer, m.panicked)
	}
	m.failed.WithLabelValues("push")
	m.failed.WithLabelValues("delete")
	return m
}

func registered[C prometheus.Collector](registerer prometheus.Registerer, c C) C {
	var there prometheus.AlreadyRegisteredError
	if errors.As(registerer.Register(c), &there) {
		if existing, ok := there.ExistingCollector.(C); ok {
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

func (m *Metrics) turnedAway() {
	if m != nil {
		m.turned.Inc()
	}
}

func (m *Metrics) panic() {
	if m != nil {
		m.panicked.Inc()
	}
}
