package firehose

import (
	"cmp"
	"slices"
	"sync"
)

const (
	pageEvents = 64        // read from the log at once
	sharedSize = 1 << 20   // bytes of frames that those near the end share
	handSize   = 128 << 10 // bytes of frames that a subscriber holds at once
)

// feed hands out what is in the log. The newest frames are kept, so that a
// commit is read and prepared once and not for every subscriber.
type feed struct {
	log Log

	mu     sync.Mutex // held while the end of the log is read: the others want the same
	from   uint64     // shared has every event after it
	to     uint64     // the last one in shared, or from
	shared []*frame
	size   int
}

// after returns the frames after a cursor, oldest first, and none at the end
// of the log. With errFellBehind there is a gap.
func (f *feed) after(cursor uint64) ([]*frame, error) {
	if frames, ok, err := f.newest(cursor); ok || err != nil {
		return frames, err
	}
	events, err := f.log.Events(cursor, pageEvents)
	if err != nil {
		return nil, err
	}
	// Asked afterwards: what the log drops meanwhile, the page may lack.
	if lost, err := f.log.Lost(); err != nil {
		return nil, err
	} else if lost > cursor {
		return nil, errFellBehind
	}
	return newFrames(events), nil
}

// newest answers those who are near the end of the log; ok is false for
// others. A gap is impossible: the shared frames join without one.
func (f *feed) newest(cursor uint64) (frames []*frame, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cursor < f.from {
		return nil, false, nil
	}
	if cursor > f.to { // who is here is further than all who were
		f.reset(cursor)
	}
	if cursor == f.to {
		events, err := f.log.Events(cursor, pageEvents)
		if err != nil || len(events) == 0 {
			return nil, true, err
		}
		if lost, err := f.log.Lost(); err != nil {
			return nil, true, err
		} else if lost > cursor {
			return nil, true, errFellBehind
		}
		frames = newFrames(events)
		if err := prepare(frames); err != nil {
			return nil, true, err
		}
		f.share(frames)
		return hand(frames), true, nil
	}
	first, _ := slices.BinarySearchFunc(f.shared, cursor+1, func(m *frame, seq uint64) int {
		return cmp.Compare(m.seq, seq)
	})
	return hand(f.shared[first:]), true, nil
}

// hand copies the first frames: a part of a slice would keep all of it alive.
func hand(frames []*frame) []*frame {
	size, n := 0, 0
	for n < len(frames) && (n == 0 || size+len(frames[n].data) <= handSize) {
		size += len(frames[n].data)
		n++
	}
	return slices.Clone(frames[:n])
}

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

// forget gives the memory back when nobody is there.
func (f *feed) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset(f.to)
}
