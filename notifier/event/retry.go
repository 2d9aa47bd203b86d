package event

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A Retry marks an event that one sink has given up before and handles again. To the other
// sinks it is nothing.
type Retry struct {
	Sink   string `json:"sink"`
	Letter uint64 `json:"letter"` // sequence number of the event that was given up
}

// retryPrefix begins a retry in the journal: an envelope around the event as it was
// recorded. Its version keeps a program that does not know retries from counting the event
// again: it leaves it pending.
const (
	retryPrefix = `{"v":6,"retry":`
	retryEvent  = `,"event":`
)

// EncodeRetry encodes a retry of an event of the journal.
func EncodeRetry(r Retry, event []byte) ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode retry: %w", err)
	}
	return bytes.Join([][]byte{[]byte(retryPrefix), head, []byte(retryEvent), event, []byte("}")}, nil), nil
}

// CutRetry returns the event that an event of the journal retries; false if it is not a
// retry.
func CutRetry(payload []byte) (r Retry, event []byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(retryPrefix))
	head, rest, found := bytes.Cut(rest, []byte(retryEvent))
	if !ok || !found || json.Unmarshal(head, &r) != nil {
		return Retry{}, nil, false
	}
	event, ok = bytes.CutSuffix(rest, []byte("}"))
	return r, event, ok
}

// Nothing returns an event without an effect on any sink, in place of one that is of
// another sink.
func Nothing(seq uint64, payload []byte) Sequenced {
	stamp, _ := StampOf(payload)
	return Sequenced{Seq: seq, Event: &Event{Version: Version, Time: stamp.At, TID: stamp.TID, ClockID: stamp.ID}, Plan: &Plan{}}
}

// IsNothing reports whether Nothing made the event.
func (s *Sequenced) IsNothing() bool { return s.Operation == "" }
