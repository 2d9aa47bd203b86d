// Package decided has the row that says which events the announce sink has decided about.
package decided

import (
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Events are the events that the sink has decided about. It is committed together with
// the decisions, so an event that is read again, because its cursor has not moved, has no
// second effect.
type Events struct {
	Through uint64   `json:"through"`        // all events up to this one
	Also    []uint64 `json:"also,omitempty"` // later ones, of windows that were closed; as many as one call of Handle gets at most

	// Again: the events after Through up to this one were decided before an operator rewound the
	// sink. Those of images that are not in this registry's storage stay as they were decided,
	// since storage cannot tell what has become of them.
	Again uint64 `json:"again,omitempty"`
}

// Read returns the stored events.
func Read(db state.Store) (p Events, err error) {
	if _, err = state.GetJSON(db.Get, state.AnnounceDecided, &p); err != nil {
		err = fmt.Errorf("read announcements: %w", err)
	}
	return p, err
}

// Last is the sequence number of the last one.
func (p *Events) Last() uint64 { return max(p.Through, p.Again, slices.Max(append(p.Also, 0))) }

// Has reports whether an event is among them.
func (p *Events) Has(seq uint64) bool {
	return seq <= p.Through || slices.Contains(p.Also, seq)
}

// Add adds the first done events and those of closed windows. It reports whether that
// changes anything.
func (p *Events) Add(events []event.Sequenced, done int, closed []uint64) bool {
	before := Events{Through: p.Through, Also: p.Also}
	if done > 0 {
		p.Through = max(p.Through, events[done-1].Seq)
	}
	also := slices.Sorted(slices.Values(append(slices.Clone(p.Also), closed...)))
	p.Also = slices.DeleteFunc(slices.Compact(also), func(seq uint64) bool { return seq <= p.Through })
	if p.Again <= p.Through {
		p.Again = 0
	}
	return p.Through != before.Through || !slices.Equal(p.Also, before.Also)
}
