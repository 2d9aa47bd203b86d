package middleware

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts requests that failed. A nil *Metrics counts nothing.
type Metrics struct {
	failed   *prometheus.CounterVec
	busy     prometheus.Counter
	panicked prometheus.Counter
}

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
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
	m.failed.WithLabelValues("push")
	m.failed.WithLabelValues("delete")
	return m
}

// Collectors returns the metrics, to be registered.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.failed, m.busy, m.panicked}
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
