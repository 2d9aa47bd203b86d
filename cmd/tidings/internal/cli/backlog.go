package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/config/explain"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// Backlog is what a running server reports of its pending events.
type Backlog struct {
	Running bool                  `json:"running"`
	Reason  string                `json:"reason,omitempty"` // why sinks are missing
	Sinks   []notifier.SinkHealth `json:"sinks,omitempty"`
}

// ReadBacklog asks the server of a configuration, if one is running.
func ReadBacklog(ctx context.Context, o *config.Options) (Backlog, error) {
	running, err := IsRunning(o)
	if err != nil || !running {
		return Backlog{Reason: "the registry is not running"}, err
	}
	b := Backlog{Running: true}
	var page admin.SinkPage
	err = admin.NewClient(o.Data).Call(ctx, "GET", "/v1/sinks", nil, &page)
	if errors.Is(err, admin.ErrNotRunning) {
		err = NoSocket(o)
	}
	if err != nil {
		b.Reason = "the registry does not answer: " + err.Error()
	}
	for _, s := range page.Sinks {
		if s.Sink != sink.Counters { // writes nothing to the account
			b.Sinks = append(b.Sinks, s.SinkHealth)
		}
	}
	return b, nil
}

// NoSocket is the error for a running process that does not serve the admin API.
func NoSocket(o *config.Options) error {
	return fmt.Errorf("a process uses the data folder %s and has no admin socket: it is another command, or an older version; "+
		"the registry logs why a socket can't be created", o.Data)
}

// Print prints a line for each sink, or why there is none.
func (b Backlog) Print(row func(string, string, ...any)) {
	topic := "backlog"
	for _, s := range b.Sinks {
		row(topic, "%s: %s", s.Sink, SinkText(s))
		if topic = ""; s.Reason != "" {
			row(topic, "%s", PauseText(s))
		}
	}
	if b.Reason != "" {
		row(topic, "%s", b.Reason)
	}
}

// SinkText is the state of a sink with its backlog.
func SinkText(s notifier.SinkHealth) string {
	text := s.State + ", nothing pending"
	if s.Depth > 0 {
		text = fmt.Sprintf("%s, %s, the oldest from %s ago", s.State, Count(int64(s.Depth), "pending event"), explain.Duration(time.Duration(s.Age)*time.Second))
	}
	if s.Failed > 0 {
		text += ", " + Count(int64(s.Failed), "dead letter")
	}
	return text
}

// PauseText says why nothing is written, and until when.
func PauseText(s notifier.SinkHealth) string {
	if s.Until.IsZero() {
		return s.Reason
	}
	return fmt.Sprintf("%s; until %s", s.Reason, s.Until.UTC().Format(time.RFC3339))
}
