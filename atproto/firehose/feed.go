package firehose

import (
	"cmp"
	"slices"
	"sync"
)

// A subscriber asks the feed for the frames after its cursor, sends them, and sets its
// cursor to the last frame that it has sent. When there are none it waits for
// Log.Wake. Cursors are kept by the subscriber and, across connections, by the client:
// the server stores none.
//
// The feed has two sources:
//
//   - The newest frames, in memory. They are a gapless range (from, to] of the log,
//     extended by the first subscriber that reaches its end, so that a commit is read
//     and prepared once for all subscribers. The range is bounded by sharedSize; the
//     oldest frames are dropped first.
//   - The log, for a cursor before that range.
//
// A subscriber that catches up passes from the log to the memory at any event, because
// both have the same frames for the same sequence numbers: no event is missing or
// repeated. Only durable events are in the log, so a crash undoes no event that was
// sent.
//
// The log drops old events at any time, perhaps the first ones of a page while it is
// read. So the feed asks for the last dropped event after each read, and ends a stream
// whose next event was dropped (errFellBehind). The client then reconnects with its
// cursor and gets the info frame OutdatedCursor.

const (
	pageEvents = 64        // events read from the log at once
	sharedSize = 1 << 20   // bytes of frames in memory
	batchSize  = 128 << 10 // bytes of frames that a subscriber holds at once
)

// feed returns the frames of the log.
type feed struct {
	log Log

	mu     sync.Mutex // also held while the end of the log is read, so that it is read once
	from   uint64     // shared has every event after it
	to     uint64     // the last one in shared, or from
	shared []*frame
	size   int // bytes of shared
}

// after returns frames after a cursor, oldest first, and none at the end of the log.
// errFellBehind means that the next one is no longer kept.
func (f *feed) after(cursor uint64) ([]*frame, error) {
	if frames, ok, err := f.newest(cursor); ok || err != nil {
		return frames, err
	}
	events, err := f.log.Events(cursor, pageEvents)
	if err != nil {
		return nil, err
	}
	// After the read, because events that the log drops during it may be missing.
	if dropped, err := f.log.Dropped(); err != nil {
		return nil, err
	} else if dropped > cursor {
		return nil, errFellBehind
	}
	return newFrames(events), nil
}

// newest returns frames from memory, and reads more at the end of the log. ok is false
// for a cursor before the frames in memory.
func (f *feed) newest(cursor uint64) (frames []*frame, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cursor < f.from {
		return nil, false, nil
	}
	if cursor > f.to { // ahead of all other subscribers
		f.reset(cursor)
	}
	if cursor == f.to {
		events, err := f.log.Events(cursor, pageEvents)
		if err != nil || len(events) == 0 {
			return nil, true, err
		}
		if dropped, err := f.log.Dropped(); err != nil {
			return nil, true, err
		} else if dropped > cursor {
			return nil, true, errFellBehind
		}
		frames = newFrames(events)
		if err := prepare(frames); err != nil {
			return nil, true, err
		}
		f.share(frames)
		return firstBatch(frames), true, nil
	}
	first, _ := slices.BinarySearchFunc(f.shared, cursor+1, func(m *frame, seq uint64) int {
		return cmp.Compare(m.seq, seq)
	})
	return firstBatch(f.shared[first:]), true, nil
}

// firstBatch copies the first frames, up to batchSize. A subslice would keep all of them
// in memory.
func firstBatch(frames []*frame) []*frame {
	size, n := 0, 0
	for n < len(frames) && (n == 0 || size+len(frames[n].data) <= batchSize) {
		size += len(frames[n].data)
		n++
	}
	return slices.Clone(frames[:n])
}

// share adds frames to the end of the range.
func (f *feed) share(frames []*frame) {
	for _, m := range frames {
		f.shared = append(f.shared, m)
		f.size += len(m.data)
		f.to = m.seq
	}
	drop := 0
	for ; f.size > sharedSize && drop < len(f.shared)-1; drop++ {
		f.size -= len(f.shared[drop].data)
		f.from = f.shared[drop].seq
	}
	f.shared = slices.Delete(f.shared, 0, drop)
}

func (f *feed) reset(at uint64) {
	f.from, f.to, f.shared, f.size = at, at, nil, 0
}

// forget frees the memory when there are no subscribers.
func (f *feed) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset(f.to)
}
