package sink

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/notifier/event"
)

// Metrics are the notifier's metrics. A nil *Metrics counts nothing.
type Metrics struct {
	events  *prometheus.CounterVec
	latency *prometheus.HistogramVec
	retries *prometheus.CounterVec
	Letters *prometheus.CounterVec
	Posts   *prometheus.CounterVec
	Layers  *prometheus.CounterVec
	Cards   *prometheus.CounterVec

	Documents *prometheus.CounterVec
}

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
	return &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_events_total",
			Help: "Pushes, pulls, deletes and deletions of an owner's data (forgetOwner) by the outcome of their event: recorded, refused (the push, or the notification of another registry, got a 503), exceeded (the push did not fit into a quota), abandoned (the push failed), lost (a pull was served but not counted).",
		}, []string{"operation", "outcome"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tidings_sink_seconds",
			Help:    "Time that a sink took for one batch of events.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"sink"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_sink_retries_total",
			Help: "Errors after which a sink tried again.",
		}, []string{"sink"}),
		Letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_dead_letters_total",
			Help: "Events that a sink gave up; they are kept with the reason.",
		}, []string{"sink"}),
		Posts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_posts_total",
			Help: "Announcements by outcome. Versions: waiting (for a cooldown or a summary), posted, joined (the post of a newer version), summarized (in a summary), deleted (before they were announced). Posts: dry_run (only logged), summary (of several versions), retracted (deleted with its image).",
		}, []string{"outcome"}),
		Cards: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_cards_total",
			Help: "Pictures of posts by outcome: attached, or why the post has none: undrawn, not_uploaded, refused (the post with it), paused (after an upload that failed).",
		}, []string{"outcome"}),
		Documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_documents_total",
			Help: "Documents of versions by outcome: written, or why the post was written without one: invalid, refused. Then referenced (it names its post), or unreferenced (the account refused that).",
		}, []string{"outcome"}),
		Layers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_odd_layers_total",
			Help: "Layers that are not valid in a record, by outcome: skipped (no record), changed (another media type).",
		}, []string{"outcome"}),
	}
}

// Collectors returns the metrics, to be registered.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.events, m.latency, m.retries, m.Letters, m.Posts, m.Layers, m.Cards, m.Documents}
}

// Event counts an event by its outcome.
func (m *Metrics) Event(operation, outcome string) {
	if m != nil {
		m.events.WithLabelValues(operation, outcome).Inc()
	}
}

// Handled counts the time that a sink took for a batch.
func (m *Metrics) Handled(sink string, d time.Duration) {
	if m != nil {
		m.latency.WithLabelValues(sink).Observe(d.Seconds())
	}
}

// Retry counts an error after which a sink tries again.
func (m *Metrics) Retry(sink string) {
	if m != nil {
		m.retries.WithLabelValues(sink).Inc()
	}
}

// Dead counts events that a sink gave up.
func (m *Metrics) Dead(sink string, n int) {
	if m != nil {
		m.Letters.WithLabelValues(sink).Add(float64(n))
	}
}

// Post counts an announcement by its outcome.
func (m *Metrics) Post(outcome string) {
	if m != nil {
		m.Posts.WithLabelValues(outcome).Inc()
	}
}

// Odd counts the layers of a push that are not valid in a record.
func (m *Metrics) Odd(o *event.OddLayers) {
	if m != nil {
		m.Layers.WithLabelValues("skipped").Add(float64(o.Skipped()))
		m.Layers.WithLabelValues("changed").Add(float64(o.MediaTypes))
	}
}

// Card counts the picture of a post by its outcome.
func (m *Metrics) Card(outcome string) {
	if m != nil {
		m.Cards.WithLabelValues(outcome).Inc()
	}
}

// Document counts the document of a version by its outcome.
func (m *Metrics) Document(outcome string) {
	if m != nil {
		m.Documents.WithLabelValues(outcome).Inc()
	}
}
