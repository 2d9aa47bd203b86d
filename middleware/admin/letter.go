package admin

import (
	"encoding/json"
	"time"

	"github.com/tidings-dev/tidings/notifier/deadletters"
)

// A Letter is a dead letter in the API.
type Letter struct {
	Sink       string          `json:"sink"`
	Stream     string          `json:"stream"` // "pushes" or "pulls"
	Seq        uint64          `json:"seq"`    // of the event, or of the first of them
	Last       uint64          `json:"last,omitempty"`
	Events     uint64          `json:"events"` // how many were given up
	Reason     string          `json:"reason"`
	Time       time.Time       `json:"time"`               // when they were given up
	Attempts   int             `json:"attempts,omitempty"` // how often the event was given up, with retries; 0: not known
	Retrying   bool            `json:"retrying,omitempty"` // its sink has not processed the retry yet
	Operation  string          `json:"operation,omitempty"`
	Repository string          `json:"repository,omitempty"`
	Tag        string          `json:"tag,omitempty"`
	Digest     string          `json:"digest,omitempty"`
	Happened   time.Time       `json:"happened,omitzero"`
	Event      json.RawMessage `json:"event,omitempty"` // not in lists
}

func letterOf(l *deadletters.Letter) Letter {
	letter := Letter{
		Sink: l.Sink, Stream: l.Stream, Seq: l.First, Events: l.Count(), Reason: l.Reason, Time: l.Time, Attempts: l.Attempts, Retrying: l.Retrying,
		Operation: l.Operation, Repository: l.Repository, Tag: l.Tag, Digest: l.Digest, Happened: l.Happened,
	}
	if l.Last > l.First {
		letter.Last = l.Last
	}
	return letter
}
