package journal

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A stream is one sequence of records in numbered segments. Appenders put
// records into a batch; one goroutine at a time, started on demand, writes
// batches; another, likewise, makes them durable. So nobody holds a lock
// over an fsync that an appender takes, and a disk that hangs holds up
// neither a caller's deadline nor its context.
//
// Locks are taken in this order.
type stream struct {
	j    *Journal
	kind Stream

	tail  sync.Mutex // to write to the last segment, or begin one
	flush sync.Mutex // to fsync and close segment files

	retaining sync.Mutex  // to delete segments; only ever tried
	retainNow atomic.Bool // somebody wants that
	doomed    string      // path of a file that is still to be deleted; the owner of retaining has it

	mu          sync.Mutex // owns the rest
	idle        sync.Cond  // a write or a round ended
	segments    []*segment // oldest first
	active      *segment   // the last of them while it may be written to, else nil
	number      uint64     // the highest segment number ever tried
	last        uint64     // number of the last event written
	written     pos        // behind the last record written
	durable     pos        // everything before is durable
	durableLast uint64     // number of the last event before durable
	newNames    int        // segments whose names may not be durable
	mark        uint64     // the highest
	forfeited   []span     // written, then lost by the disk
	next        *batch     // what waits to be written
	writing     bool
	round       *round // the fsync in progress
	grew        chan struct{}
	intents     map[uint64]*intentState // open ones, Pushes only
	settled     []*intentState          // not yet durably, in order
	dropped     []*intentState          // of intents, those whose abandonment failed
	openBytes   int64                   // of intents
	noted       map[string]uint64       // how far a reader has come, by cursor, where that is not in the state
	readers     []*reader               // idle ones, the longest idle first
	closed      bool                    // no more calls
	finished    bool                    // no more fsyncs
}

type span struct{ from, to pos }

// A batch is what one write puts on disk.
type batch struct {
	buf    []byte
	events uint64
	taken  chan struct{} // closed when the writer has it; nil: nobody waits for that
	done   chan struct{} // closed once the fields below are set
	first  uint64        // number of its first event
	end    pos           // behind it
	err    error
}

// maxBatch is how many bytes one batch has at most, unless it is a single
// record. The journal holds two, so it bounds the memory that a slow disk costs.
const maxBatch = 8 << 20

func (b *batch) hasRoom(r record) bool {
	return len(b.buf) == 0 || len(b.buf)+recordHead+len(r.payload) <= maxBatch ||
		r.kind == kindAbandon // which is small, and there are no more than intents
}

// append queues r and returns once it is with the operating system. Its
// number is 0 unless it is an event.
func (s *stream) append(ctx context.Context, late time.Time, r record) (seq uint64, end pos, err error) {
	b, nth, lead, err := s.queue(ctx, late, r)
	if err != nil {
		return 0, 0, err
	}
	if lead {
		s.lead()
	}
	if err := await(ctx, late, b.done); err != nil {
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

// queue puts r into the next batch, as its nth event if it is one. While that
// is full it waits until the writer takes it. The caller that is told to lead
// calls lead.
func (s *stream) queue(ctx context.Context, late time.Time, r record) (b *batch, nth uint64, lead bool, err error) {
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
		err := await(ctx, late, b.taken)
		s.mu.Lock()
		if err != nil {
			return nil, 0, false, err
		}
	}
	if err := s.claim(r); err != nil {
		return nil, 0, false, err
	}
	s.dropAgain(b)
	b.buf = r.encode(b.buf)
	nth = b.events
	if r.kind == kindEvent {
		b.events++
	}
	s.mark = max(s.mark, r.mark)
	lead = !s.writing
	s.writing = true
	return b, nth, lead, nil
}

// late is when the disk has taken too long for a call that begins now.
func (s *stream) late() time.Time { return time.Now().Add(s.j.cfg.Wait) }

// await returns nil when done is closed first.
func await(ctx context.Context, late time.Time, done <-chan struct{}) error {
	select {
	case <-done: // by the caller himself, if he led: then no timer is needed
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(late))
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
		if s.grew == nil {
			s.grew = make(chan struct{})
		}
		grew := s.grew
		s.mu.Unlock()
		select {
		case <-grew:
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

// wake ends the waiting for an event. mu is held.
func (s *stream) wake() {
	if s.grew != nil {
		close(s.grew)
		s.grew = nil
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

// jump makes the next event's number at least seq+1, in a segment whose header
// says so. tail is held, or there are no appends yet.
func (s *stream) jump(seq uint64) {
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

// close lets what was accepted reach the disk, within the time that an
// append may take.
func (s *stream) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.wake()
	late := false
	timer := time.AfterFunc(s.j.cfg.Wait, func() {
		s.mu.Lock()
		late = true
		s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer timer.Stop()
	for s.writing && !late {
		s.idle.Wait()
	}
	end := s.written
	s.mu.Unlock()

	err := s.syncTo(context.Background(), s.late(), end)

	s.mu.Lock()
	for s.round != nil && !late {
		s.idle.Wait()
	}
	s.finished = true
	stuck := s.writing || s.round != nil
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
