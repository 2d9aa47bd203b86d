package journal

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A stream is one sequence of records in numbered segments. Appends add records to a
// batch. One goroutine at a time writes batches and another one syncs them; both are
// started on demand. No lock that an append takes is held during an fsync, so a
// hanging disk does not delay the caller's deadline or the cancellation of its context.
//
// Locks are taken in the order of the fields; retaining is taken with
// TryLock, except by Copy.
type stream struct {
	j    *Journal
	kind Stream

	tail  sync.Mutex // to write to the last segment, or begin one
	flush sync.Mutex // to fsync and close segment files

	retaining sync.Mutex  // to delete segments
	retainNow atomic.Bool // retain was called
	deleting  string      // path of the file to delete; guarded by retaining

	mu             sync.Mutex      // guards the fields below
	idle           sync.Cond       // a write or an fsync ended
	segments       []*segment      // oldest first
	active         *segment        // the last of them while it may be written to, else nil
	number         uint64          // the highest segment number ever used
	last           uint64          // number of the last event written
	written        position        // end of the last record written
	durable        position        // everything before it is durable
	durableLast    uint64          // number of the last event before durable
	newNames       int             // segments whose names may not be durable
	order          uint64          // the highest order number
	lostRanges     []positionRange // written, then lost by the disk
	next           *batch          // the batch to be written next
	writing        bool
	syncing        *groupSync // the fsync in progress
	grown          chan struct{}
	intents        map[uint64]*intentState // open ones, Pushes only
	ended          []*intentState          // completed or abandoned, not yet durably; in order
	failedAbandons []*intentState          // of intents, those whose abandonment failed
	openBytes      int64                   // of intents
	lazyCursors    map[string]uint64       // cursors that are not yet in the state
	readers        []*reader               // idle ones, the longest idle first
	closed         bool                    // no more calls
	finished       bool                    // no more fsyncs
}

type positionRange struct{ from, to position }

// A batch is the records of one write.
type batch struct {
	buf    []byte
	events uint64
	taken  chan struct{} // closed when the writer takes the batch; nil: no append waits for that
	done   chan struct{} // closed once the fields below are set
	first  uint64        // number of its first event
	end    position      // of the batch
	err    error
}

// maxBatch is the maximum size of a batch in bytes, unless it is a single record. A
// stream has at most two batches in memory while the disk is slow.
const maxBatch = 8 << 20

func (b *batch) hasRoom(r record) bool {
	return len(b.buf) == 0 || len(b.buf)+recordHead+len(r.payload) <= maxBatch ||
		r.kind == kindAbandon // small, and at most one for each intent
}

// append queues r and returns once the operating system has it. The sequence number is
// 0 unless r is an event.
func (s *stream) append(ctx context.Context, deadline time.Time, r record) (seq uint64, end position, err error) {
	b, nth, lead, err := s.queue(ctx, deadline, r)
	if err != nil {
		return 0, 0, err
	}
	if lead {
		s.lead()
	}
	if err := await(ctx, deadline, b.done); err != nil {
		return 0, 0, err
	}
	if b.err != nil {
		return 0, 0, b.err
	}
	if r.kind == kindEvent {
		seq = b.first + nth
	}
	return seq, b.end, nil
}

// queue adds r to the next batch, as its nth event if it is one. While the batch
// is full, queue waits until the writer takes it. If lead is true the caller must
// call s.lead.
func (s *stream) queue(ctx context.Context, deadline time.Time, r record) (b *batch, nth uint64, lead bool, err error) {
	if err := r.check(); err != nil {
		return nil, 0, false, err
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return nil, 0, false, ErrClosed
		}
		if s.next == nil {
			s.next = &batch{done: make(chan struct{})}
		}
		b = s.next
		if b.hasRoom(r) {
			break
		}
		if b.taken == nil {
			b.taken = make(chan struct{})
		}
		s.mu.Unlock()
		err := await(ctx, deadline, b.taken)
		s.mu.Lock()
		if err != nil {
			return nil, 0, false, err
		}
	}
	if err := s.admit(r); err != nil {
		return nil, 0, false, err
	}
	s.retryAbandons(b)
	b.buf = r.encode(b.buf)
	nth = b.events
	if r.kind == kindEvent {
		b.events++
	}
	s.order = max(s.order, r.order)
	lead = !s.writing
	s.writing = true
	return b, nth, lead, nil
}

// deadline returns the time at which a call that starts now returns ErrSlow.
func (s *stream) deadline() time.Time { return time.Now().Add(s.j.cfg.Wait) }

// await returns nil if done is closed before ctx ends and the deadline passes.
func await(ctx context.Context, deadline time.Time, done <-chan struct{}) error {
	select {
	case <-done: // the leader has closed it: no timer is needed
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ErrSlow
	}
}

// wait blocks until there is an event numbered above after.
func (s *stream) wait(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		if s.closed || s.last > after {
			closed := s.closed
			s.mu.Unlock()
			if closed {
				return ErrClosed
			}
			return nil
		}
		if s.grown == nil {
			s.grown = make(chan struct{})
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// wake ends all calls of wait. mu is held.
func (s *stream) wake() {
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
}

func (s *stream) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{First: s.last + 1, Last: s.last, Segments: len(s.segments)}
	for _, g := range s.segments {
		st.Bytes += g.end
		if g.last >= g.first {
			st.First = min(st.First, g.first)
		}
	}
	return st
}

// skipTo sets the number of the next event to at least seq+1, in a new segment whose
// header records it. It is called before any append.
func (s *stream) skipTo(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq <= s.last {
		return
	}
	s.last, s.active = seq, nil
	if s.durable == s.written {
		s.durableLast = seq
	}
}

// close writes and syncs the accepted records, within Config.Wait.
func (s *stream) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.wake()
	timedOut := false
	timer := time.AfterFunc(s.j.cfg.Wait, func() {
		s.mu.Lock()
		timedOut = true
		s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer timer.Stop()
	for s.writing && !timedOut {
		s.idle.Wait()
	}
	end := s.written
	s.mu.Unlock()

	err := s.syncTo(context.Background(), s.deadline(), end)

	s.mu.Lock()
	for s.syncing != nil && !timedOut {
		s.idle.Wait()
	}
	s.finished = true
	stuck := s.writing || s.syncing != nil
	s.mu.Unlock()
	if stuck {
		return fmt.Errorf("close the journal of %s: %w", s.kind, ErrSlow) // its files stay with the hanging call
	}
	s.closeFiles()
	return err
}

func (s *stream) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		if g.file != nil {
			g.file.Close()
			g.file = nil
		}
	}
	for _, r := range s.readers {
		r.file.Close()
	}
	s.readers = nil
}
