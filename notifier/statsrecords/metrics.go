package statsrecords

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// Metrics are the metrics of a Publisher. A nil *Metrics records nothing.
type Metrics struct {
	records  *prometheus.CounterVec
	failures prometheus.Counter
	last     prometheus.Gauge
}

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
	return &Metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_stats_records_total",
			Help: "Stats records by outcome: create, update, delete, refused (by the account; the next round tries again).",
		}, []string{"outcome"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_stats_round_failures_total",
			Help: "Attempts to publish counts that failed and are repeated.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_stats_last_round_timestamp_seconds",
			Help: "Unix time at which the last complete round of stats records began.",
		}),
	}
}

// Collectors returns the metrics, to be registered.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.records, m.failures, m.last}
}

func (m *Metrics) written(a repo.Action) {
	if m != nil {
		m.records.WithLabelValues(string(a)).Inc()
	}
}

func (m *Metrics) refused() {
	if m != nil {
		m.records.WithLabelValues("refused").Inc()
	}
}

func (m *Metrics) failed() {
	if m != nil {
		m.failures.Inc()
	}
}

func (m *Metrics) completed(began time.Time) {
	if m != nil {
		m.last.Set(float64(began.Unix()))
	}
}
