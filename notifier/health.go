package notifier

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// SinkHealth says how far behind a sink is.
type SinkHealth struct {
	Stream string `json:"stream"` // "pushes" or "pulls"
	Sink   string `json:"sink"`
	State  string `json:"state"` // "ok" or "behind"
	*Backlog
}

// A Backlog is what a sink has before it. It moves with each push and pull,
// whatever its repository: it is not for everybody.
type Backlog struct {
	Depth  uint64 `json:"depth"`         // pending events
	Age    int64  `json:"oldestSeconds"` // of the oldest pending event
	Failed int    `json:"deadLetters"`   // events that were given up and are kept as dead letters
}

const (
	sinkOK     = "ok"
	sinkBehind = "behind"
)

// behindAfter is the age of a pending event, beyond what the sink waits on
// purpose, from which its sink is behind.
const behindAfter = 15 * time.Minute

// Health says how far behind each sink is, and what it has given up.
func (n *Notifier) Health() []SinkHealth {
	failed, err := n.DeadLetters.count()
	if err != nil {
		n.log.Warn("the dead letters cannot be counted", "err", err)
	}
	var all []SinkHealth
	for _, s := range n.sinks {
		all = append(all, n.behind(journal.Pushes, s.name()))
	}
	for _, s := range counted {
		all = append(all, n.behind(s, counterSink))
	}
	for i := range all {
		stream := journal.Pushes
		if all[i].Stream == journal.Pulls.String() {
			stream = journal.Pulls
		}
		all[i].Failed = failed[box{all[i].Sink, stream}]
	}
	return all
}

func (n *Notifier) behind(s journal.Stream, sink string) SinkHealth {
	h := SinkHealth{Stream: "pushes", Sink: sink, State: sinkOK, Backlog: &Backlog{}}
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
	age, late := n.oldest(s, cursor), behindAfter
	if sink == announceName {
		late += n.Announce.Collect
	}
	if h.Age = int64(age.Seconds()); age > late {
		h.State = sinkBehind
	}
	return h
}

// oldest is the age of the first event above after, 0 if there is none. The mark
// of a pull is its time; the mark of a push is a TID's, which says nothing about
// the time after the clock has jumped.
func (n *Notifier) oldest(s journal.Stream, after uint64) time.Duration {
	if s == journal.Pulls {
		if mark, ok := n.Journal.Oldest(s, after); ok {
			return max(0, n.Now().Sub(time.UnixMicro(int64(mark))))
		}
		return 0
	}
	if first, ok := n.firstPending.after(n.Journal, after); ok {
		return n.clock.age(first)
	}
	return 0
}

// pendingEvents remembers the stamp of the event behind each cursor, so that a
// look at health reads no event twice.
type pendingEvents struct {
	mu    sync.Mutex
	first map[uint64]stamp // by cursor; a few
}

func (p *pendingEvents) after(j *journal.Journal, cursor uint64) (stamp, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first, ok := p.first[cursor]; ok {
		return first, true
	}
	entries, err := j.Read(journal.Pushes, cursor, 1, 1)
	if err != nil || len(entries) == 0 {
		return stamp{}, false
	}
	first, ok := stampOf(entries[0].Payload)
	if !ok {
		return stamp{}, false
	}
	if p.first == nil || len(p.first) >= 8 {
		p.first = map[uint64]stamp{}
	}
	p.first[cursor] = first
	return first, true
}

// Jumped is the last jump of the machine's clock since the start, false if there
// was none.
func (n *Notifier) Jumped() (Jump, bool) { return n.clock.jumped() }

var (
	depthDesc = prometheus.NewDesc("tidings_journal_depth", "Events that wait for a sink.", []string{"stream", "sink"}, nil)
	ageDesc   = prometheus.NewDesc("tidings_journal_oldest_seconds", "Age of the oldest event that waits for a sink.", []string{"stream", "sink"}, nil)
	deadDesc  = prometheus.NewDesc("tidings_dead_letters", "Events that a sink gave up, now or before a restart, and that are kept with the reason.", []string{"sink"}, nil)
	bytesDesc = prometheus.NewDesc("tidings_journal_bytes", "Bytes that a stream of the journal holds on disk.", []string{"stream"}, nil)
)

// Describe and Collect make the notifier a prometheus.Collector of the
// journal's depth, age and size, and of the dead letters.
func (n *Notifier) Describe(ch chan<- *prometheus.Desc) {
	ch <- depthDesc
	ch <- ageDesc
	ch <- deadDesc
	ch <- bytesDesc
}

// Collect reads the journal's state.
func (n *Notifier) Collect(ch chan<- prometheus.Metric) {
	failed := map[string]int{}
	for _, h := range n.Health() {
		failed[h.Sink] += h.Failed
		ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(h.Depth), h.Stream, h.Sink)
		ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, float64(h.Age), h.Stream, h.Sink)
	}
	for sink, count := range failed {
		ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.GaugeValue, float64(count), sink)
	}
	for s, name := range map[journal.Stream]string{journal.Pushes: "pushes", journal.Pulls: "pulls"} {
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(n.Journal.Status(s).Bytes), name)
	}
}
