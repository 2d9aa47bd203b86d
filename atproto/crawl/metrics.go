package crawl

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the metrics of a Crawler. A nil *Metrics records nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	lag      *prometheus.GaugeVec
	current  *prometheus.GaugeVec
}

func NewMetrics() *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_crawl_requests_total",
			Help: "Requests to relays to crawl this hold: accepted, failed.",
		}, []string{"outcome"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidings_relay_lag_seconds",
			Help: "Age of the oldest commit that a relay does not have; 0: none.",
		}, []string{"relay"}),
		current: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidings_relay_current",
			Help: "1 if a relay carries the account and its commits, 0 if it does not or does not answer.",
		}, []string{"relay"}),
	}
	m.requests.WithLabelValues("accepted")
	m.requests.WithLabelValues("failed")
	return m
}

// Collectors returns the collectors to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.lag, m.current}
}

func (m *Metrics) requested(err error) {
	if m == nil {
		return
	}
	outcome := "accepted"
	if err != nil {
		outcome = "failed"
	}
	m.requests.WithLabelValues(outcome).Inc()
}

func (m *Metrics) checked(s RelayStatus) {
	if m == nil {
		return
	}
	current := 0.0
	if s.State == StateCurrent {
		current = 1
	}
	m.current.WithLabelValues(s.Relay).Set(current)
	m.lag.WithLabelValues(s.Relay).Set(s.Lag.Seconds())
}
