package records

import (
	"cmp"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// A Batch is the content of the records sink's outbox.
type Batch struct {
	Manifests []Change `json:"manifests"`
}

// A Change is what events change in the records of one manifest.
type Change struct {
	Owner  string           `json:"owner"`
	Digest string           `json:"digest"`
	Events []Cause          `json:"events,omitempty"`
	Before *ledger.Entry    `json:"before,omitempty"` // nil: there was none
	After  *ledger.Entry    `json:"after,omitempty"`  // nil: it is deleted
	Writes []repo.Write     `json:"writes,omitempty"`
	Odd    *event.OddLayers `json:"odd,omitempty"` // of the records that Writes creates
}

// A Cause is an event that causes a change.
type Cause struct {
	Seq        uint64 `json:"seq"`
	Push       bool   `json:"push,omitempty"`
	Repository string `json:"repository"` // as Event.Name returns it
	Local      bool   `json:"local,omitempty"`
	Origin     uint64 `json:"origin,omitempty"` // as in the event
}

// result is the sequence number that the result of the event is stored under.
func (c *Cause) result() uint64 { return cmp.Or(c.Origin, c.Seq) }

func (c *Change) creates() bool { return len(c.Writes) > 0 && c.Writes[0].Action == repo.Create }

// layers are those of the records that the change creates.
func (c *Change) layers() []usage.Layer {
	var layers []usage.Layer
	for _, w := range c.Writes {
		if l, ok := ReadLayer(repo.Record{RKey: w.RKey, Value: w.Record}); ok {
			layers = append(layers, l.Layer)
		}
	}
	return layers
}

func (b *Batch) writes() []repo.Write {
	var all []repo.Write
	for _, m := range b.Manifests {
		all = append(all, m.Writes...)
	}
	return all
}

// manifestOf is the index of the change that the i-th write belongs to, or -1.
func (b *Batch) manifestOf(i int) int {
	for m := range b.Manifests {
		if i < len(b.Manifests[m].Writes) {
			return m
		}
		i -= len(b.Manifests[m].Writes)
	}
	return -1
}

func (b *Batch) remove(m int) { b.Manifests = slices.Delete(b.Manifests, m, m+1) }
