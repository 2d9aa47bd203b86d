package middleware

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what went wrong on the way of a request. A nil *Metrics is
// silent.
type Metrics struct {
	failed   *prometheus.CounterVec
	turned   prometheus.Counter
	panicked prometheus.Counter
}

// NewMetrics makes the metrics and registers them, if registerer is not nil.
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
	m.failed.WithLabelValues("push")
	m.failed.WithLabelValues("delete")
	if registerer != nil {
		registerer.MustRegister(m.failed, m.turned, m.panicked)
	}
	return m
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
