package rediscounts

import (
	"crypto/rand"
	"encoding/json"
	"strings"
)

// Sequences are sequence numbers of events, by stream.
type Sequences map[uint8]uint64

// Beyond reports whether p has a greater sequence number than o in any stream.
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
	Upto     Sequences `json:"upto,omitempty"`    // the counts include no later event
	Part     bool      `json:"part,omitempty"`    // an older id whose counts are being restored
	Kept     bool      `json:"kept,omitempty"`    // ended by Forget; its counts stay in the sum
	Removed  bool      `json:"removed,omitempty"` // ended by Forget; its counts were removed
}

// Encode returns the value in Redis.
func (r Record) Encode() string {
	b, _ := json.Marshal(r) // can't fail
	return string(b)
}

// ParseRecord parses the value in Redis. It returns nil for an empty value, which means
// that there is no record, and a record without an owner for one that is not valid JSON.
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

// NewID returns a random id for a registry, a process or a call.
func NewID() string { return strings.ToLower(rand.Text()[:12]) }
