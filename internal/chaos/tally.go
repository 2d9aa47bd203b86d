package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/internal/faultproxy"
)

const applyWrites = "com.atproto.repo.applyWrites"

// points is what a PDS charges for a write; the source is the reference PDS.
var points = map[string]int{"create": 3, "update": 2, "delete": 1}

// A tally counts the points of the calls that reached the PDS.
type tally struct {
	mu      sync.Mutex
	counts  counts
	applied map[string]bool // collection and key of records that were created
}

// counts are numbers of calls, writes and points.
type counts struct {
	calls      int // applyWrites that reached the PDS
	points     int // that they cost, whatever the response
	unanswered int // points of calls that the PDS, stopped meanwhile, may have applied or not
	refused    int // points of calls that the PDS did not apply
	repeated   int // creates of records that an earlier call had created
	logins     int // createSession calls
}

func newTally() *tally { return &tally{applied: map[string]bool{}} }

// add counts a call that the PDS has received.
func (t *tally) add(c faultproxy.Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch c.Method {
	case "com.atproto.server.createSession":
		t.counts.logins++
	case applyWrites:
		t.addWrites(c)
	}
}

func (t *tally) addWrites(c faultproxy.Call) {
	var input struct {
		Writes []struct {
			Type       string `json:"$type"`
			Collection string `json:"collection"`
			RKey       string `json:"rkey"`
		} `json:"writes"`
	}
	_ = json.Unmarshal(c.Input, &input) // the PDS refuses what is invalid
	cost := 0
	for _, w := range input.Writes {
		kind := strings.TrimPrefix(w.Type, applyWrites+"#")
		cost += points[kind]
		if kind != "create" {
			continue
		}
		key := w.Collection + "/" + w.RKey
		if t.applied[key] {
			t.counts.repeated++
		}
		if c.Status == http.StatusOK {
			t.applied[key] = true
		}
	}
	t.counts.calls++
	t.counts.points += cost
	switch c.Status {
	case http.StatusOK:
	case 0:
		t.counts.unanswered += cost
	default:
		t.counts.refused += cost
	}
}

func (t *tally) total() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}
