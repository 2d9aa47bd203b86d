package announce

import (
	"slices"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
)

// decided are the events that the sink has decided about. It is committed together with
// the decisions, so an event that is read again, because its cursor has not moved, has no
// second effect.
type decided struct {
	Through uint64   `json:"through"`        // all events up to this one
	Also    []uint64 `json:"also,omitempty"` // later ones, of windows that were closed; as many as one call of Handle gets at most

	// Again: the events after Through up to this one were decided before an operator rewound the
	// sink. Those of images that are not in this registry's storage stay as they were decided,
	// since storage cannot tell what has become of them.
	Again uint64 `json:"again,omitempty"`
}

func readDecided(db state.Store) (p decided, err error) {
	_, err = state.GetJSON(db.Get, state.AnnounceDecided, &p)
	return p, err
}

// Decided is the sequence number of the last event that the sink has decided about.
func Decided(db state.Store) (uint64, error) {
	p, err := readDecided(db)
	return max(p.Through, p.Again, slices.Max(append(p.Also, 0))), err
}

func (p *decided) has(seq uint64) bool {
	return seq <= p.Through || slices.Contains(p.Also, seq)
}

// add adds the first done events and those of closed windows. It reports whether that
// changes anything.
func (p *decided) add(events []event.Sequenced, done int, closed []uint64) bool {
	before := decided{Through: p.Through, Also: p.Also}
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
