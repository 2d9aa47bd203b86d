package journal

import (
	"context"
	"fmt"
	"slices"
)

// An openIntent holds back retention of the segment it lies in.
type openIntent struct {
	place    pos
	settling bool // its completion or abandonment is on its way to disk

	earlier bool // from an earlier process; then mark and payload are kept
	mark    uint64
	payload []byte
}

// Begin appends an intent to push. It returns once the operating system has
// it: should the process die before the intent is completed or abandoned, the
// next one finds it with Unsettled. A mark that the event may use later is
// given here, so that Mark covers it.
func (j *Journal) Begin(ctx context.Context, mark uint64, payload []byte) (Intent, error) {
	s := j.streams[Pushes]
	late := s.late()
	in := Intent{j.intents.Add(1)}
	b, _, lead, err := s.queue(ctx, record{kind: kindIntent, intent: in.id, mark: mark, payload: payload})
	if err == nil {
		if lead {
			s.lead()
		}
		if err = await(ctx, late, b.done); err == nil {
			err = b.err
		} else {
			go j.withdraw(b, in)
		}
	}
	if err != nil {
		return Intent{}, fmt.Errorf("append intent: %w", err)
	}
	return in, nil
}

// withdraw abandons an intent whose Begin did not wait for it.
func (j *Journal) withdraw(b *batch, in Intent) {
	<-b.done
	if b.err == nil {
		j.Abandon(in) // an error leaves it to the next start
	}
}

// Complete appends the event that in announced and returns its number once
// it is durable. After an error the event may still arrive: if it was written
// and not yet durable, in counts as settled; if not, in is open as before.
func (j *Journal) Complete(ctx context.Context, in Intent, mark uint64, payload []byte) (seq uint64, err error) {
	s := j.streams[Pushes]
	late := s.late()
	seq, end, err := s.append(ctx, late, record{kind: kindEvent, intent: in.id, mark: mark, payload: payload})
	if err == nil {
		err = s.syncTo(ctx, late, end)
	}
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return seq, nil
}

// Abandon says that nothing came of in. It is not durable: after a power cut
// in may be open again. Abandoning a settled intent does nothing.
func (j *Journal) Abandon(in Intent) error {
	s := j.streams[Pushes]
	_, _, err := s.append(context.Background(), s.late(), record{kind: kindAbandon, intent: in.id})
	if err != nil && err != ErrSettled {
		return fmt.Errorf("abandon intent: %w", err)
	}
	return nil
}

// Unsettled returns the intents that an earlier process began and that are
// still open, in the order in which they were begun.
func (j *Journal) Unsettled() []Unsettled {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []Unsettled
	for id, in := range s.intents {
		if in.earlier && !in.settling {
			open = append(open, Unsettled{Intent{id}, in.payload, in.mark})
		}
	}
	slices.SortFunc(open, func(a, b Unsettled) int { return int(int64(a.Intent.id - b.Intent.id)) })
	return open
}

// claim makes r the one record that may settle its intent. mu is held.
func (s *stream) claim(r record) error {
	if r.intent == 0 || r.kind == kindIntent {
		return nil
	}
	in := s.intents[r.intent]
	if in == nil || in.settling {
		return ErrSettled
	}
	in.settling = true
	return nil
}

// unclaim undoes claim for the records of a batch that was not written.
func (s *stream) unclaim(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	walk(b.buf, func(_ []byte, r record) {
		if in := s.intents[r.intent]; in != nil {
			in.settling = false
		}
	})
}

// noteIntent takes in what a record on disk does to the intents. mu is held.
func (s *stream) noteIntent(r record, place pos) {
	switch {
	case r.intent == 0:
	case r.kind == kindIntent:
		s.intents[r.intent] = &openIntent{place: place, mark: r.mark, payload: append([]byte{}, r.payload...)}
	default:
		delete(s.intents, r.intent)
	}
}

// Release says that nobody will settle in any more: Unsettled returns it from
// now on. It does nothing if in is settled or about to be.
func (j *Journal) Release(in Intent) {
	s := j.streams[Pushes]
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.intents[in.id]; open != nil {
		open.earlier = true
	}
}
