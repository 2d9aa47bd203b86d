package remote

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/pds"
)

// Metrics are the metrics of a Hold. A nil *Metrics records nothing.
type Metrics struct {
	calls *prometheus.CounterVec
	time  prometheus.Histogram
}

// outcomes are the values of the label outcome.
var outcomes = map[pds.Outcome]string{
	pds.Unknown: "lost", pds.Refused: "refused", pds.TooLarge: "refused", pds.Limited: "limited", pds.Suspended: "suspended",
}

// NewMetrics returns metrics that are not registered.
func NewMetrics() *Metrics {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_remote_calls_total",
			Help: "Calls of the remote hold: applied, refused, limited, suspended (not accepted, or the hold could not be reached), lost (no answer).",
		}, []string{"outcome"}),
		time: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tidings_remote_call_seconds",
			Help:    "Time from a call of the remote hold to its answer.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	m.calls.WithLabelValues("applied")
	for _, outcome := range outcomes {
		m.calls.WithLabelValues(outcome)
	}
	return m
}

// Collectors returns the collectors to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.time}
}

func (m *Metrics) called(err error, took time.Duration) {
	if m == nil {
		return
	}
	outcome := "applied"
	var failed *pds.Error
	if errors.As(err, &failed) {
		outcome = outcomes[failed.Outcome]
	}
	m.calls.WithLabelValues(outcome).Inc()
	if err == nil {
		m.time.Observe(took.Seconds())
	}
}
