package firehose

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the metrics of a Firehose. A nil *Metrics records nothing.
type Metrics struct {
	subscribers prometheus.Gauge
	frames      prometheus.Counter
	bytes       prometheus.Counter
	ended       *prometheus.CounterVec
}

func NewMetrics() *Metrics {
	m := &Metrics{
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_firehose_subscribers",
			Help: "Connected subscribers.",
		}),
		frames: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_firehose_frames_total",
			Help: "Frames sent to all subscribers.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidings_firehose_bytes_total",
			Help: "Bytes of frames sent to all subscribers.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_firehose_ended_total",
			Help: "Streams by the reason for their end: gone, refused, slow, flood, shutdown, error. Full: subscribers that were refused because there are too many.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"gone", "refused", "slow", "flood", "shutdown", "error", "full"} {
		m.ended.WithLabelValues(reason)
	}
	return m
}

// Collectors returns the collectors to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.subscribers, m.frames, m.bytes, m.ended}
}

func (m *Metrics) joined() {
	if m != nil {
		m.subscribers.Inc()
	}
}

func (m *Metrics) left(why error) {
	if m != nil {
		m.subscribers.Dec()
		m.ended.WithLabelValues(reason(why)).Inc()
	}
}

func (m *Metrics) full() {
	if m != nil {
		m.ended.WithLabelValues("full").Inc()
	}
}

func (m *Metrics) sent(size int) {
	if m != nil {
		m.frames.Inc()
		m.bytes.Add(float64(size))
	}
}

func reason(why error) string {
	var refused *refusal
	switch {
	case errors.Is(why, errTooSlow), errors.Is(why, errFellBehind):
		return "slow"
	case errors.As(why, &refused):
		return "refused"
	case errors.Is(why, errFlood):
		return "flood"
	case errors.Is(why, errGoingAway):
		return "shutdown"
	case errors.Is(why, errGone):
		return "gone"
	}
	return "error"
}
