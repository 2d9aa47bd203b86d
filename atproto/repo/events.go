package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// Event is one finished firehose frame.
type Event struct {
	Seq   uint64 // the unix microseconds at which it was made, or a little later
	Frame []byte // header and body, ready to be sent as one WebSocket message
}

const (
	pageBytes = 16 << 10        // of frames that Events hands out at once: each of many subscribers may hold as much
	trimEvery = 5 * time.Minute // of age, so that few commits carry a deletion
)

// mark is a place in the event log: before the event seq, with the bytes of
// all frames ever logged before it.
type mark struct {
	seq    uint64 // 0: the log is empty
	logged uint64
}

// putEvent logs a frame and returns the new count of bytes. Each event keeps
// the count before it, so that the size of any stretch is one subtraction.
func putEvent(b *pebble.Batch, logged, seq uint64, frame []byte) uint64 {
	setTwo(b, eventKey(seq), binary.BigEndian.AppendUint64(nil, logged), frame)
	return logged + uint64(len(frame))
}

// Events returns events with a sequence number greater than after, oldest
// first: up to limit, and fewer once they pass 16 KiB. Empty at the end.
func (r *Repo) Events(after uint64, limit int) ([]Event, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	if after >= v.Seq {
		return nil, nil
	}
	it, err := eventIter(v.snap, after+1)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var events []Event
	size := 0
	for ok := it.First(); ok && len(events) < limit && size < pageBytes; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		if len(val) < 8 {
			return nil, fmt.Errorf("read events: %w", errDamaged)
		}
		events = append(events, Event{seqOf(it.Key()), slices.Clone(val[8:])})
		size += len(val)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// OldestEvent is the sequence number of the first event that is still kept, 0
// if none is. A subscriber whose cursor is below it has missed some.
func (r *Repo) OldestEvent() (uint64, error) {
	v, err := r.acquire()
	if err != nil {
		return 0, err
	}
	defer r.release(v)
	m, err := oldestEvent(v.snap, v.state)
	return m.seq, err
}

// Wait returns once there is an event with a sequence number greater than
// after, or the context ends, or the repository is closed.
func (r *Repo) Wait(ctx context.Context, after uint64) error {
	for {
		r.mu.Lock()
		seq, changed := r.view.Seq, r.changed
		r.mu.Unlock()
		if seq > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.closing:
			return ErrClosed
		}
	}
}

// Wake gives a channel that is closed once there may be an event with a
// sequence number greater than after: look, and if there is none ask again. It
// stays open when the repository is closed.
func (r *Repo) Wake(after uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Seq > after {
		return awake
	}
	return r.changed
}

// awake is closed.
var awake = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func eventIter(r pebble.Reader, from uint64) (*pebble.Iterator, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: eventKey(from), UpperBound: after(prefixEvent)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return it, nil
}

func seqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(prefixEvent):]) }

// oldestEvent is the place of the first event, or the end of an empty log.
func oldestEvent(r pebble.Reader, s state) (mark, error) {
	return firstEvent(r, 0, s, func(mark) bool { return true })
}

// firstEvent is the place of the first event from seq on that keep accepts.
func firstEvent(r pebble.Reader, from uint64, s state, keep func(mark) bool) (mark, error) {
	it, err := eventIter(r, from)
	if err != nil {
		return mark{}, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return mark{}, fmt.Errorf("read events: %w", err)
		}
		if len(val) < 8 {
			return mark{}, fmt.Errorf("read events: %w", errDamaged)
		}
		m := mark{seqOf(it.Key()), binary.BigEndian.Uint64(val)}
		if keep(m) {
			return m, nil
		}
	}
	if err := it.Error(); err != nil {
		return mark{}, fmt.Errorf("read events: %w", err)
	}
	return mark{0, s.logged}, nil
}

// trim adds to the batch the deletion of events that are too old or too many,
// and returns the place of the first that stays. Events after last, which the
// batch itself adds, always stay.
func (w *writer) trim(b *pebble.Batch, last uint64) (mark, error) {
	oldest := w.oldest
	if oldest.seq == 0 {
		// The events of this batch are the first ones; the next look finds them.
		return oldestEvent(w.store, w.next)
	}
	limit := uint64(w.cfg.EventsLimit)
	cut := uint64(max(0, w.cfg.Now().Add(-w.cfg.EventsMaxAge).UnixMicro()))
	due := oldest.seq+uint64(trimEvery.Microseconds()) < cut || w.next.logged-oldest.logged > limit
	if !due {
		return oldest, nil
	}
	// A sixteenth more than needed, so that the next commits needn't delete.
	stay := limit - limit/16
	kept, err := firstEvent(w.store, cut, w.next, func(m mark) bool { return w.next.logged-m.logged <= stay })
	if err != nil {
		return mark{}, err
	}
	end := eventKey(kept.seq)
	if kept.seq == 0 {
		end = eventKey(last + 1)
	}
	if err := w.drop(b, end); err != nil {
		return mark{}, err
	}
	return kept, nil
}

// drop deletes the events before end and notes which was the last of them.
func (w *writer) drop(b *pebble.Batch, end []byte) error {
	it, err := eventIter(w.store, 0)
	if err != nil {
		return err
	}
	defer it.Close()
	if it.SeekLT(end) {
		b.Set(keyLost, it.Key()[len(prefixEvent):], nil)
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	b.DeleteRange(eventKey(0), end, nil)
	return nil
}

// LostEvents is the sequence number of the last event that is no longer kept,
// 0 while all are. A subscriber whose cursor is below it has missed some.
func (r *Repo) LostEvents() (uint64, error) {
	v, err := r.acquire()
	if err != nil {
		return 0, err
	}
	defer r.release(v)
	val, err := store.Read(v.snap, keyLost)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read events: %w", err)
	case len(val) != 8:
		return 0, fmt.Errorf("read events: %w", errDamaged)
	}
	return binary.BigEndian.Uint64(val), nil
}
