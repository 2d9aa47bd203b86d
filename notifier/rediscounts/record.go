package rediscounts

import (
	"crypto/rand"
	"encoding/json"
	"strings"
)

// Sequences are sequence numbers of events, by stream.
type Sequences map[uint8]uint64

// Beyond reports whether any stream is further than in o.
func (p Sequences) Beyond(o Sequences) bool {
	for stream, n := range p {
		if n > o[stream] {
			return true
		}
	}
	return false
}

// Record is the value of a registry id, as JSON.
type Record struct {
	Owner    string    `json:"owner,omitempty"` // run of the process that writes under the id; empty: none does
	Call     string    `json:"call"`            // random, different in each call
	Journal  string    `json:"journal,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Host     string    `json:"host,omitempty"`
	Seen     int64     `json:"seen"`              // unix seconds, by the owner's clock
	Upto     Sequences `json:"upto,omitempty"`    // no event after these is in the numbers
	Part     bool      `json:"part,omitempty"`    // an older id whose numbers are being restored
	Kept     bool      `json:"kept,omitempty"`    // ended by Forget, its numbers count
	Removed  bool      `json:"removed,omitempty"` // ended by Forget, its numbers were removed
}

// Encode returns the value in Redis.
func (r Record) Encode() string {
	b, _ := json.Marshal(r) // can't fail
	return string(b)
}

// ParseRecord returns nil for an empty value, which stands for no record. A record that
// can't be parsed has no owner.
func ParseRecord(raw string) *Record {
	if raw == "" {
		return nil
	}
	var r Record
	if json.Unmarshal([]byte(raw), &r) != nil {
		return &Record{}
	}
	return &r
}

// NewID returns a random id, of a registry, a process or a call.
func NewID() string { return strings.ToLower(rand.Text()[:12]) }
