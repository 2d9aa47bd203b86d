package notifier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// SinkHealth says how far behind a sink is.
type SinkHealth struct {
	Stream string `json:"stream"` // "pushes" or "pulls"
	Sink   string `json:"sink"`
	Depth  uint64 `json:"depth"`         // events that wait
	Age    int64  `json:"oldestSeconds"` // of the oldest that waits
}

// Health says how far behind each sink is.
func (n *Notifier) Health() []SinkHealth {
	var all []SinkHealth
	for _, s := range n.sinks {
		all = append(all, n.behind(journal.Pushes, s.name()))
	}
	for _, s := range counted {
		all = append(all, n.behind(s, counterSink))
	}
	return all
}

func (n *Notifier) behind(s journal.Stream, sink string) SinkHealth {
	h := SinkHealth{Stream: "pushes", Sink: sink}
	if s == journal.Pulls {
		h.Stream = "pulls"
	}
	cursor := n.Journal.Cursor(s, sink)
	if sink == counterSink {
		cursor = n.Counter.Latest(uint8(s))
	}
	if last := n.Journal.Status(s).Last; last > cursor {
		h.Depth = last - cursor
	}
	if mark, ok := n.Journal.Oldest(s, cursor); ok {
		h.Age = max(0, int64(n.Now().Sub(time.UnixMicro(int64(mark))).Seconds()))
	}
	return h
}

var (
	depthDesc = prometheus.NewDesc("tidings_journal_depth", "Events that wait for a sink.", []string{"stream", "sink"}, nil)
	ageDesc   = prometheus.NewDesc("tidings_journal_oldest_seconds", "Age of the oldest event that waits for a sink.", []string{"stream", "sink"}, nil)
	bytesDesc = prometheus.NewDesc("tidings_journal_bytes", "Bytes that a stream of the journal holds on disk.", []string{"stream"}, nil)
)

// Describe and Collect make the notifier a prometheus.Collector of the
// journal's depth, age and size.
func (n *Notifier) Describe(ch chan<- *prometheus.Desc) {
	ch <- depthDesc
	ch <- ageDesc
	ch <- bytesDesc
}

// Collect reads the journal's state.
func (n *Notifier) Collect(ch chan<- prometheus.Metric) {
	for _, h := range n.Health() {
		ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(h.Depth), h.Stream, h.Sink)
		ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, float64(h.Age), h.Stream, h.Sink)
	}
	for s, name := range map[journal.Stream]string{journal.Pushes: "pushes", journal.Pulls: "pulls"} {
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(n.Journal.Status(s).Bytes), name)
	}
}
