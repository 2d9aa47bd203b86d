package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/config/explain"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// Backlog is what a running server reports of its pending events.
type Backlog struct {
	Running bool                  `json:"running"`
	Reason  string                `json:"reason,omitempty"` // why sinks are missing
	Sinks   []notifier.SinkHealth `json:"sinks,omitempty"`
}

// ReadBacklog asks the server of a configuration, if one is running.
func ReadBacklog(o *config.Options, path string) (Backlog, error) {
	running, err := IsRunning(o)
	if err != nil || !running {
		return Backlog{Reason: "the registry is not running"}, err
	}
	b := Backlog{Running: true}
	base, err := ServerURL(o, path)
	if err != nil {
		b.Reason = err.Error()
		return b, nil
	}
	token, err := apiToken(o)
	if err != nil {
		return b, err
	}
	if token == "" {
		b.Reason = "the number of pending events needs the option api.token_file"
	}
	var health struct{ Sinks []notifier.SinkHealth }
	if err := GetJSON(base+stats.Prefix+"health", token, &health); err != nil {
		b.Reason = "the registry does not answer: " + err.Error()
		return b, nil
	}
	for _, s := range health.Sinks {
		if s.Sink != sink.Counters { // writes nothing to the account
			b.Sinks = append(b.Sinks, s)
		}
	}
	return b, nil
}

// apiToken returns the token of the API, "" if there is none.
func apiToken(o *config.Options) (string, error) {
	if o.API.TokenFile == "" {
		return "", nil
	}
	content, err := private.ReadFile(o.API.TokenFile)
	return strings.TrimSpace(string(content)), err
}

// Print prints it for people.
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

// SinkText is the state of a sink, with numbers if the registry gives them.
func SinkText(s notifier.SinkHealth) string {
	if s.Backlog == nil {
		return s.State
	}
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
