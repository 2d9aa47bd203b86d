package quota

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the gate's metrics. A nil *Metrics counts nothing.
type Metrics struct{ checks *prometheus.CounterVec }

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
	return &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidings_quota_checks_total",
		Help: "Pushes of owners with a quota by outcome: fits, exceeded (refused), unverified (accepted, since the usage was not known).",
	}, []string{"outcome"})}
}

// Collectors returns the metrics, to be registered.
func (m *Metrics) Collectors() []prometheus.Collector { return []prometheus.Collector{m.checks} }

func (m *Metrics) count(outcome string) {
	if m != nil {
		m.checks.WithLabelValues(outcome).Inc()
	}
}
