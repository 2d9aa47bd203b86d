package repo

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// The event log. An event is the frame of a #commit, #sync, #identity or
// #account message under its sequence number, which is the time in microseconds
// at which it was created, or a little later. It is in the same batch as the
// change that it describes, so after a crash the log has exactly the events of
// the commits that are on disk, and the head has the sequence number of the last.
//
// Readers page through it with a cursor, the sequence number of the last event
// they have (Events), and wait for the next (Wake). They read from the published
// snapshot, so they never see an event that a crash can undo.
//
// Events that are too old or exceed the size limit are dropped from the front, in
// the batch of a commit or by cleanUp. The same batch records the sequence number
// of the last one dropped: a reader whose cursor is below that has missed some
// (DroppedEvents). Each event is stored with the bytes of all frames before it,
// so that sizes need no scan. An import, a repair and a restored backup don't
// rewrite the log: they add a #sync, which replaces the state of readers.

// Event is an encoded message of the firehose.
type Event struct {
	Seq   uint64
	Frame []byte // header and body, ready to be sent as one WebSocket message
}

const (
	pageBytes = 16 << 10        // of frames that Events returns at once: each of many subscribers may hold as much
	trimEvery = 5 * time.Minute // of age, so that few commits carry a deletion
)

// logPosition is a position in the event log.
type logPosition struct {
	seq    uint64 // of the event after it; 0: the log is empty
	logged uint64 // bytes of all frames ever logged before it
}

// Events returns events with a sequence number greater than after, oldest
// first: up to limit, and fewer once they exceed 16 KiB. Empty at the end.
func (r *Repo) Events(after uint64, limit int) ([]Event, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	if after >= v.Seq {
		return nil, nil
	}
	it, err := iterateEvents(v.snap, after+1)
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
		_, data, err := layout.SplitEvent(val)
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		events = append(events, Event{layout.SeqOf(it.Key()), slices.Clone(data)})
		size += len(data)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// DroppedEvents returns the sequence number of the last event that is no longer
// kept, 0 while all are. A subscriber with a cursor below it has missed some.
func (r *Repo) DroppedEvents() (uint64, error) {
	v, err := r.acquire()
	if err != nil {
		return 0, err
	}
	defer r.release(v)
	seq, err := layout.LastDropped(v.snap)
	if err != nil {
		return 0, fmt.Errorf("read events: %w", err)
	}
	return seq, nil
}

// Wake returns a channel that is closed once there may be an event with a
// sequence number greater than after: read, and if there is none call Wake
// again. It stays open when the repo is closed.
func (r *Repo) Wake(after uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Seq > after {
		return closed
	}
	return r.changed
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func iterateEvents(r store.Reader, from uint64) (store.Iterator, error) {
	it, err := r.NewIter(store.Range{Start: layout.EventKey(from), End: layout.End(layout.PrefixEvent)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return it, nil
}

// oldestEvent returns the position of the first event, or the end of an empty log.
func oldestEvent(r store.Reader, s layout.State) (logPosition, error) {
	return firstEvent(r, 0, s, func(logPosition) bool { return true })
}

// firstEvent returns the position of the first event from seq on that keep
// accepts, or the end of the log.
func firstEvent(r store.Reader, from uint64, s layout.State, keep func(logPosition) bool) (logPosition, error) {
	it, err := iterateEvents(r, from)
	if err != nil {
		return logPosition{}, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return logPosition{}, fmt.Errorf("read events: %w", err)
		}
		logged, _, err := layout.SplitEvent(val)
		if err != nil {
			return logPosition{}, fmt.Errorf("read events: %w", err)
		}
		if p := (logPosition{layout.SeqOf(it.Key()), logged}); keep(p) {
			return p, nil
		}
	}
	if err := it.Error(); err != nil {
		return logPosition{}, fmt.Errorf("read events: %w", err)
	}
	return logPosition{0, s.Logged}, nil
}

// trim adds the deletion of expired events to the batch and returns the position
// of the first that stays. Events after last, which the batch itself adds, stay.
func (w *writer) trim(b store.Batch, last uint64) (logPosition, error) {
	oldest := w.oldest
	if oldest.seq == 0 {
		// The events of this batch are the first; the next call finds them.
		return oldestEvent(w.store, w.next)
	}
	limit := uint64(w.cfg.EventsLimit)
	cut := uint64(max(0, w.cfg.Now().Add(-w.cfg.EventsMaxAge).UnixMicro()))
	due := oldest.seq+uint64(trimEvery.Microseconds()) < cut || w.next.Logged-oldest.logged > limit
	if !due {
		return oldest, nil
	}
	// A sixteenth more than necessary, so that the next commits needn't delete.
	stay := limit - limit/16
	kept, err := firstEvent(w.store, cut, w.next, func(p logPosition) bool { return w.next.Logged-p.logged <= stay })
	if err != nil {
		return logPosition{}, err
	}
	end := layout.EventKey(kept.seq)
	if kept.seq == 0 {
		end = layout.EventKey(last + 1)
	}
	if err := w.drop(b, end); err != nil {
		return logPosition{}, err
	}
	return kept, nil
}

// drop deletes the events before a key and records the last of them.
func (w *writer) drop(b store.Batch, end []byte) error {
	it, err := iterateEvents(w.store, 0)
	if err != nil {
		return err
	}
	defer it.Close()
	if it.SeekLT(end) {
		layout.SetDropped(b, layout.SeqOf(it.Key()))
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	b.DeleteRange(layout.EventKey(0), end)
	return nil
}
