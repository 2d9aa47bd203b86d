package counter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// Metrics are the metrics of a Counter. A nil *Metrics records nothing.
type Metrics struct {
	Facts       *prometheus.CounterVec // by class: facts folded into the local counts
	Published   prometheus.Counter     // rows acknowledged by Redis
	Failures    prometheus.Counter     // failed rounds
	Lost        prometheus.Counter     // rounds that found that Redis had lost counts
	LastSuccess prometheus.Gauge       // unix seconds
}

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
	return &Metrics{
		Facts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_counter_facts_total", Help: "Requests folded into the local counts.",
		}, []string{"class"}),
		Published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_counter_published_rows_total", Help: "Rows of counts that Redis acknowledged.",
		}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_counter_publish_failures_total", Help: "Rounds of publishing to Redis that failed.",
		}),
		Lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_counter_redis_lost_total", Help: "Times that Redis had lost counts, which were then sent again.",
		}),
		LastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_counter_last_publish_timestamp_seconds", Help: "Unix time at which Redis last had all counts.",
		}),
	}
}

// Collectors returns the metrics, to be registered.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.Facts, m.Published, m.Failures, m.Lost, m.LastSuccess}
}

// folded counts facts, except those of unlisted accounts, which may not have been counted.
func (m *Metrics) folded(facts []counts.Fact) {
	if m == nil {
		return
	}
	for _, f := range facts {
		if f.Class.Index() >= 0 && !f.Unlisted {
			m.Facts.WithLabelValues(string(f.Class)).Inc()
		}
	}
}

func (m *Metrics) published(rows, lost int, failed bool, now time.Time) {
	if m == nil {
		return
	}
	m.Published.Add(float64(rows))
	m.Lost.Add(float64(lost))
	if failed {
		m.Failures.Inc()
		return
	}
	m.LastSuccess.Set(float64(now.Unix()))
}
