package appview

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the metrics of a Watcher. A nil *Metrics records nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	delay    prometheus.Histogram
	missing  prometheus.Gauge
}

// NewMetrics returns metrics that are not registered.
func NewMetrics() *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_announce_index_requests_total",
			Help: "Requests to the AppView whether it has posts: answered, failed.",
		}, []string{"outcome"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tidings_announce_index_delay_seconds",
			Help:    "Time from writing a post until the AppView was seen to have it.",
			Buckets: []float64{15, 30, 60, 120, 300, 600, 1200, 3600},
		}),
		missing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_announce_unindexed_posts",
			Help: "Posts that the AppView did not have 10 minutes after they were written.",
		}),
	}
	m.requests.WithLabelValues("answered")
	m.requests.WithLabelValues("failed")
	return m
}

// Collectors returns the collectors to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.delay, m.missing}
}

func (m *Metrics) asked(err error) {
	if m == nil {
		return
	}
	outcome := "answered"
	if err != nil {
		outcome = "failed"
	}
	m.requests.WithLabelValues(outcome).Inc()
}

func (m *Metrics) indexed(delay time.Duration) {
	if m != nil {
		m.delay.Observe(delay.Seconds())
	}
}

func (m *Metrics) changed(s Status) {
	if m != nil {
		m.missing.Set(float64(s.Missing))
	}
}
