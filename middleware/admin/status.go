package admin

import (
	"encoding/json"
	"time"

	"github.com/tidings-dev/tidings/notifier"
)

// Values of Status.Status.
const (
	OK       = "ok"
	Degraded = "degraded"
	Broken   = "broken" // pushes are refused, or nothing can be published until somebody acts
)

// Status is the response of GET /v1/status.
type Status struct {
	Status  string    `json:"status"`
	Reasons []string  `json:"reasons,omitempty"` // why it is not ok
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started"`
	Data    string    `json:"data"` // the data folder
	Sinks   []Sink    `json:"sinks"`
	Parked  int       `json:"parked,omitempty"` // pushes whose records are not written yet, since the handle of their owner is not resolved
	Disks   []Disk    `json:"disks"`
	// Health is the response of /tidings/api/v1/health with the token: Redis, the account,
	// relays and the AppView.
	Health json.RawMessage `json:"health,omitempty"`
}

// A Sink is a sink with its backlog and speed.
type Sink struct {
	notifier.SinkHealth
	Rate float64   `json:"eventsPerSecond"` // processed in the last minutes
	Ends time.Time `json:"ends,omitzero"`   // when nothing is pending at this speed; missing: not known

	Position uint64 `json:"position"` // sequence number of the last event that it has processed
	Last     uint64 `json:"last"`     // of the last event of the stream
}

// A Disk is the free space of a folder of ours.
type Disk struct {
	Path    string `json:"path"`
	Free    uint64 `json:"freeBytes"`
	Reserve uint64 `json:"reserveBytes,omitempty"` // below which writes pause
}
