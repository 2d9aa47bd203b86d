package crawl

import "github.com/prometheus/client_golang/prometheus"

// Metrics tells what relays answer. A nil *Metrics is silent.
type Metrics struct{ requests *prometheus.CounterVec }

func NewMetrics() *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidings_crawl_requests_total",
		Help: "Requests to relays to crawl this hold: accepted, failed.",
	}, []string{"outcome"})}
	m.requests.WithLabelValues("accepted")
	m.requests.WithLabelValues("failed")
	return m
}

// Collectors are what to register.
func (m *Metrics) Collectors() []prometheus.Collector { return []prometheus.Collector{m.requests} }

func (m *Metrics) asked(err error) {
	if m == nil {
		return
	}
	outcome := "accepted"
	if err != nil {
		outcome = "failed"
	}
	m.requests.WithLabelValues(outcome).Inc()
}
