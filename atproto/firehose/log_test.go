package firehose

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// memLog is a log in memory. Its pages are small, and it fails a test that requests less
// than one event.
type memLog struct {
	t testing.TB

	mu      sync.Mutex
	events  []Event
	head    uint64
	dropped uint64
	wake    chan struct{}
	broken  error
	reads   int
}

func newLog(t testing.TB) *memLog { return &memLog{t: t, wake: make(chan struct{})} }

// add logs events with these sequence numbers and, if size isn't 0, of that size.
func (l *memLog) add(size int, seqs ...uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, seq := range seqs {
		if seq <= l.head {
			l.t.Errorf("seq %d after %d", seq, l.head)
		}
		frame := fmt.Appendf(nil, "%d ", seq)
		if n := size - len(frame); n > 0 {
			frame = append(frame, make([]byte, n)...)
		}
		l.events = append(l.events, Event{seq, frame})
		l.head = seq
	}
	close(l.wake)
	l.wake = make(chan struct{})
}

// next logs one more event.
func (l *memLog) next() uint64 {
	seq := l.Head() + 1
	l.add(0, seq)
	return seq
}

// drop drops the events up to a sequence number.
func (l *memLog) drop(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.events) > 0 && l.events[0].Seq <= seq {
		l.dropped = l.events[0].Seq
		l.events = l.events[1:]
	}
}

func (l *memLog) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = errors.New("disk failed")
}

func (l *memLog) Events(after uint64, limit int) ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if limit < 1 {
		l.t.Errorf("limit is %d", limit)
	}
	i := slices.IndexFunc(l.events, func(e Event) bool { return e.Seq > after })
	if i < 0 || l.broken != nil {
		return nil, l.broken
	}
	return slices.Clone(l.events[i:min(i+limit, i+7, len(l.events))]), nil
}

func (l *memLog) Head() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

func (l *memLog) Dropped() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped, l.broken
}

func (l *memLog) Wake(after uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head > after {
		open := make(chan struct{})
		close(open)
		return open
	}
	return l.wake
}
