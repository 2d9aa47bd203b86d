package notifier

import (
	"cmp"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// SinkHealth is the state of a sink.
type SinkHealth struct {
	Stream string `json:"stream"` // "pushes" or "pulls"
	Sink   string `json:"sink"`
	State  string `json:"state"` // "ok", "behind" or "paused"
	// Of a paused sink: why nothing is written to the account or reported, and until when, if that is
	// known.
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`

	ByOperator bool `json:"pausedByOperator,omitempty"` // until an operator resumes it
	*Backlog

	unwritable bool // whether it is paused because the account cannot be written, or the hold of remote not be called
}

// Paused reports whether nothing is written to the account at the moment, or an operator has
// paused the sink.
func (h *SinkHealth) Paused() bool { return h.State == sinkPaused }

// Suspended reports whether the sink is paused because the account cannot be written or
// the hold of remote cannot be called, or by an operator.
func (h *SinkHealth) Suspended() bool {
	return h.Paused() && (h.ByOperator || h.unwritable)
}

// A Backlog is what a sink has not processed. It changes with each push and pull, also
// of private repositories, so it is not public.
type Backlog struct {
	Depth  uint64 `json:"depth"`         // pending events
	Age    int64  `json:"oldestSeconds"` // of the oldest pending event
	Failed int    `json:"deadLetters"`   // events that were given up
}

const (
	sinkOK     = "ok"
	sinkBehind = "behind"
	sinkPaused = "paused"
)

// Reasons of a pause.
const (
	reasonLimited   = "the points of the account are spent, or its service asked to wait"
	reasonSuspended = "the account cannot be written: " // and why
	reasonInLog     = "the log has the reason"
	reasonOperator  = "paused by operator since "
	reasonFinishing = "; it finishes the batch that is on its way"
)

// Reasons of a pause of the remote sink.
const (
	reasonRemote        = "the hold of remote cannot be reached or does not accept this registry; the log has the reason"
	reasonRemoteLimited = "the hold of remote asked to wait, or did not answer"
)

// behindAfter is the age of the oldest pending event above which a sink is behind. What
// the announce sink waits to collect tags is added to it.
const behindAfter = 15 * time.Minute

// Health returns the state of each sink.
func (n *Notifier) Health() []SinkHealth {
	failed, err := n.dead.Count()
	if err != nil {
		n.log.Warn("dead letters can't be counted", "error", err)
	}
	var all []SinkHealth
	for _, s := range n.sinks {
		all = append(all, n.sinkHealth(journal.Pushes, s.Name()))
	}
	for _, s := range countedStreams {
		all = append(all, n.sinkHealth(s, sink.Counters))
	}
	if n.pulls != nil {
		all = append(all, n.sinkHealth(journal.Pulls, remote.Name))
	}
	for i := range all {
		stream := journal.Pushes
		if all[i].Stream == journal.Pulls.String() {
			stream = journal.Pulls
		}
		all[i].Failed = failed[deadletters.Box{Sink: all[i].Sink, Stream: stream}]
	}
	return all
}

// A Position is how far a sink is in a stream.
type Position struct {
	Stream, Sink string
	Done, Last   uint64    // sequence numbers
	Paused       time.Time // since when an operator has paused the sink; zero: it is not paused
}

// Pending is the number of pending events.
func (p *Position) Pending() uint64 { return p.Last - min(p.Last, p.Done) }

// Positions returns the positions of all sinks, without reading anything.
func (n *Notifier) Positions() (all []Position) {
	for _, s := range n.sinks {
		all = append(all, n.position(journal.Pushes, s.Name()))
	}
	for _, s := range countedStreams {
		all = append(all, n.position(s, sink.Counters))
	}
	if n.pulls != nil {
		all = append(all, n.position(journal.Pulls, remote.Name))
	}
	return all
}

func (n *Notifier) position(s journal.Stream, name string) Position {
	p := Position{Stream: s.String(), Sink: name, Done: n.journal.Cursor(s, name)}
	switch {
	case name == sink.Counters:
		p.Done = n.counter.Latest(uint8(s))
	case s == journal.Pulls:
		p.Done = n.pullsReported()
	}
	p.Last = n.journal.Status(s).Last
	if by, paused := n.runner.Paused(name); paused {
		p.Paused = by.Since
	}
	return p
}

// processed returns a function that reports whether the sink of a box has processed an event, or
// has it in its outbox.
func (n *Notifier) processed(box deadletters.Box) (func(seq uint64) bool, error) {
	for _, s := range n.sinks {
		if skippable, ok := s.(sink.Skippable); ok && box == pushesOf(s.Name()) {
			return skippable.Processed()
		}
	}
	done := n.position(box.Stream, box.Sink).Done
	return func(seq uint64) bool { return seq <= done }, nil
}

// ParkedPushes returns how many pushes wait for the handle of their owner.
func (n *Notifier) ParkedPushes() int { return n.parked.Len() }

func (n *Notifier) sinkHealth(s journal.Stream, name string) SinkHealth {
	p := n.position(s, name)
	h := SinkHealth{Stream: p.Stream, Sink: name, State: sinkOK, Backlog: &Backlog{Depth: p.Pending()}}
	age, limit := n.pendingAge(s, p.Done), behindAfter
	if name == announce.Name {
		limit += n.announce.Collect
	}
	if h.Age = int64(age.Seconds()); age > limit {
		h.State = sinkBehind
	}
	if p, ok := n.runner.Waiting(name); ok {
		h.State, h.Reason, h.Until, h.unwritable = sinkPaused, waitReason(name, p), p.Until, !p.Limited
	}
	if p, ok := n.runner.Paused(name); ok {
		h.State, h.Reason, h.Until, h.ByOperator = sinkPaused, reasonOperator+p.Since.Format(time.RFC3339), time.Time{}, true
		if p.Finishing {
			h.Reason += reasonFinishing
		}
	}
	return h
}

// waitReason says why a sink writes nothing, for everybody.
func waitReason(sink string, p delivery.Pause) string {
	switch {
	case sink == remote.Name && p.Limited:
		return reasonRemoteLimited
	case sink == remote.Name:
		return reasonRemote
	case p.Limited:
		return reasonLimited
	}
	return reasonSuspended + cmp.Or(p.Reason, reasonInLog)
}

// usualWrites is how many writes a push is expected to need until some have been processed.
const usualWrites = 5

// PendingWrites estimates how many writes to the account the pending events need: for
// records as many as those since the start needed on average, and one for a post.
func (n *Notifier) PendingWrites() int {
	perEvent := float64(usualWrites)
	if events := n.recorded.Load(); events > 0 {
		perEvent = float64(n.account.Applied()) / float64(events)
	}
	writes := 0.0
	for _, s := range n.sinks {
		depth := float64(n.sinkHealth(journal.Pushes, s.Name()).Depth)
		if s.Name() == records.Name {
			depth *= perEvent
		}
		writes += depth
	}
	return int(math.Ceil(writes))
}

// pendingAge is the age of the first event after a sequence number, 0 if there is none.
// The order number of a pull is its time. That of a push is the time of a TID, which can
// differ from the event's time after a jump of the clock, so the event is read.
func (n *Notifier) pendingAge(s journal.Stream, after uint64) time.Duration {
	if s == journal.Pulls {
		if mark, ok := n.journal.OrderAfter(s, after); ok {
			return max(0, n.now().Sub(time.UnixMicro(int64(mark))))
		}
		return 0
	}
	if first, ok := n.oldest.After(n.journal, after); ok {
		return n.clock.Age(first)
	}
	return 0
}

// Jumped returns the last jump of the system clock since the start, false if there was
// none.
func (n *Notifier) Jumped() (event.Jump, bool) { return n.clock.Jumped() }

var (
	depthDesc  = prometheus.NewDesc("tidings_journal_depth", "Events that a sink has not processed yet.", []string{"stream", "sink"}, nil)
	ageDesc    = prometheus.NewDesc("tidings_journal_oldest_seconds", "Age of the oldest event that a sink has not processed yet.", []string{"stream", "sink"}, nil)
	pausedDesc = prometheus.NewDesc("tidings_sink_paused", "1 while an operator has paused a sink, else 0.", []string{"stream", "sink"}, nil)
	deadDesc   = prometheus.NewDesc("tidings_dead_letters", "Events that a sink gave up, also before a restart, and that are kept with the reason.", []string{"sink"}, nil)
	parkedDesc = prometheus.NewDesc("tidings_parked_pushes", "Pushes without records because the handle of their owner is not resolved yet.", nil, nil)
	bytesDesc  = prometheus.NewDesc("tidings_journal_bytes", "Bytes of a stream of the journal on disk.", []string{"stream"}, nil)
)

// Describe implements prometheus.Collector, with Collect, for the depth, age and size of
// the journal, for the dead letters and for what is parked.
func (n *Notifier) Describe(ch chan<- *prometheus.Desc) {
	ch <- depthDesc
	ch <- ageDesc
	ch <- pausedDesc
	ch <- deadDesc
	ch <- bytesDesc
	ch <- parkedDesc
}

// Collect implements prometheus.Collector.
func (n *Notifier) Collect(ch chan<- prometheus.Metric) {
	failed := map[string]int{}
	for _, h := range n.Health() {
		failed[h.Sink] += h.Failed
		ch <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(h.Depth), h.Stream, h.Sink)
		ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, float64(h.Age), h.Stream, h.Sink)
		paused := 0.0
		if h.ByOperator {
			paused = 1
		}
		ch <- prometheus.MustNewConstMetric(pausedDesc, prometheus.GaugeValue, paused, h.Stream, h.Sink)
	}
	for sink, count := range failed {
		ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.GaugeValue, float64(count), sink)
	}
	ch <- prometheus.MustNewConstMetric(parkedDesc, prometheus.GaugeValue, float64(n.parked.Len()))
	for s, name := range map[journal.Stream]string{journal.Pushes: "pushes", journal.Pulls: "pulls"} {
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(n.journal.Status(s).Bytes), name)
	}
}
