package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Stream is one of the two sequences of events that a journal keeps.
type Stream uint8

const (
	Pushes Stream = iota // durable when Append returns
	Pulls                // with the operating system when Append returns
)

func (s Stream) String() string {
	switch s {
	case Pushes:
		return "pushes"
	case Pulls:
		return "pulls"
	}
	return fmt.Sprintf("stream %d", uint8(s))
}

// Defaults and limits of a Config, and of payloads. Sizes are in bytes.
const (
	DefaultSegmentSize = 16 << 20
	MinSegmentSize     = 4 << 20 // a larger event gets a segment of its own
	MaxSegmentSize     = 1 << 30

	DefaultLimit = 1 << 30

	DefaultWait = 10 * time.Second
	MinWait     = 100 * time.Millisecond
	MaxWait     = 5 * time.Minute

	MaxPayload = 8 << 20  // of an event
	MaxIntent  = 64 << 10 // of an intent: open ones are kept in memory and moved
)

// Config configures Open.
type Config struct {
	Dir         string // the journal's own folder; created if missing
	SegmentSize int64  // bytes after which a new segment begins; 0: DefaultSegmentSize
	FS          FS     // nil: the operating system's

	// Limit is the size of the events of a stream in bytes, and half of the maximum
	// size of its files. It is checked when a segment begins. 0: DefaultLimit.
	Limit int64

	// Wait limits how long an append waits for the disk, except for an append that is
	// in a write of the operating system. 0: DefaultWait.
	Wait time.Duration

	// Dropped is called before the events first to last, which cursor has not
	// passed, are deleted because of the limit. It may read them; an error ends
	// the iteration. After a crash it may be called again for the same events. If it
	// returns an error, the events are kept and it is called again later.
	// nil: dropped events are only logged.
	Dropped func(s Stream, cursor string, first, last uint64, events iter.Seq2[Entry, error]) error

	Logger *slog.Logger // nil: silent

	readOnly bool // see OpenReadOnly
}

// An Entry is one event as it was appended.
type Entry struct {
	Seq     uint64 // counts the events of one stream from 1
	Order   uint64 // as given to Append or Complete
	Payload []byte // owned by the caller
}

// An Intent identifies an open intent to push or to delete.
type Intent struct{ id uint64 }

// An OpenIntent is an intent that an earlier process left open, or that was
// released.
type OpenIntent struct {
	Intent  Intent
	Payload []byte
	Order   uint64
}

// Status describes one stream.
type Status struct {
	First, Last uint64 // the events on disk; First is Last+1 when there are none
	Bytes       int64  // on disk
	Segments    int    // files
}

// A Journal is one open directory. All methods are safe for concurrent use.
type Journal struct {
	cfg     Config
	fs      FS
	log     *slog.Logger
	salt    uint64
	id      atomic.Uint64
	intents atomic.Uint64 // the highest id of an intent
	streams [2]*stream

	opened  atomic.Bool
	stateMu sync.Mutex // to write journal.json
	state   atomic.Pointer[state]

	background sync.WaitGroup
}

// Open opens the journal in cfg.Dir, or creates one. It truncates a write at the end
// of a stream that a crash or a power cut left incomplete. It returns a *CorruptError
// if durable bytes are damaged, and ErrFull if it has to write and the disk is full;
// it then succeeds once there is space.
func Open(cfg Config) (*Journal, error) {
	if cfg.SegmentSize <= 0 {
		cfg.SegmentSize = DefaultSegmentSize
	}
	cfg.SegmentSize = min(cfg.SegmentSize, MaxSegmentSize)
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultLimit
	}
	if cfg.Wait <= 0 {
		cfg.Wait = DefaultWait
	}
	if cfg.FS == nil {
		cfg.FS = osFS{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	j := &Journal{cfg: cfg, fs: cfg.FS, log: cfg.Logger.With("component", "journal")}
	for kind := range j.streams {
		s := &stream{j: j, kind: Stream(kind), intents: map[uint64]*intentState{}, lazyCursors: map[string]uint64{}}
		s.idle.L = &s.mu
		j.streams[kind] = s
	}
	if err := j.load(); err != nil {
		j.Close()
		return nil, fmt.Errorf("open journal: %w", diskError(err))
	}
	j.opened.Store(true)
	return j, nil
}

// ID returns the journal's id, 16 hexadecimal characters: random, chosen with the
// directory, and replaced if the journal is found to be behind a cursor. Journal id,
// stream and sequence number identify an event permanently.
func (j *Journal) ID() string { return j.state.Load().ID }

// ClockID returns 10 random bits chosen with the directory, for the TIDs of this
// registry.
func (j *Journal) ClockID() uint { return j.state.Load().ClockID }

// LastOrder returns the highest order number ever appended, even if its event has been
// deleted.
func (j *Journal) LastOrder() uint64 {
	order := j.state.Load().Order
	for _, s := range j.streams {
		s.mu.Lock()
		order = max(order, s.order)
		s.mu.Unlock()
	}
	return order
}

// Append appends an event and returns its sequence number: of Pushes once it is
// durable, of Pulls once the operating system has it. It waits at most Config.Wait.
// After an error the event may still be written. The payload may be reused once
// Append returns.
func (j *Journal) Append(ctx context.Context, s Stream, order uint64, payload []byte) (uint64, error) {
	st := j.streams[s]
	deadline := st.deadline()
	seq, end, err := st.append(ctx, deadline, record{kind: kindEvent, order: order, payload: payload})
	if err == nil && s == Pushes {
		err = st.syncTo(ctx, deadline, end)
	}
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return seq, nil
}

// Read returns up to maxEntries events numbered above after, oldest first, and stops
// once their payloads have maxBytes in total. The events are durable: if the first is
// not yet, Read syncs the stream. It may return fewer events than
// requested; an empty slice means that there are no more at present. Sequence
// numbers that the journal does not have are skipped.
func (j *Journal) Read(s Stream, after uint64, maxEntries, maxBytes int) ([]Entry, error) {
	st := j.streams[s]
	st.mu.Lock()
	closed, needed := st.closed, after >= st.durableLast && after < st.last
	st.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if needed {
		if err := st.syncAll(); err != nil {
			return nil, fmt.Errorf("read %s: %w", s, err)
		}
	}
	entries, err := st.read(after, maxEntries, maxBytes)
	if err != nil && len(entries) == 0 {
		return nil, fmt.Errorf("read %s: %w", s, err)
	}
	return entries, nil // the next call returns the error
}

// Wait blocks until there is an event numbered above after, ctx ends, or the
// journal is closed.
func (j *Journal) Wait(ctx context.Context, s Stream, after uint64) error {
	return j.streams[s].wait(ctx, after)
}

// Status returns the current status of a stream. The number of pending events of a
// reader is Last minus its cursor.
func (j *Journal) Status(s Stream) Status { return j.streams[s].status() }

// A Segment describes a file of a stream.
type Segment struct {
	Path        string
	First, Last uint64 // its events; First is Last+1 when there are none
	Bytes       int64
}

// Segments returns the files of a stream, oldest first.
func (j *Journal) Segments(s Stream) []Segment {
	st := j.streams[s]
	st.mu.Lock()
	defer st.mu.Unlock()
	var all []Segment
	for _, g := range st.segments {
		all = append(all, Segment{g.path, g.first, g.last, g.end})
	}
	return all
}

// Limit is the size of the events of a stream, in bytes, above which the oldest are dropped.
func (j *Journal) Limit() int64 { return j.cfg.Limit }

// HalfFull reports whether a stream has used more than half of its limit. Whole segments are
// deleted, so one of them does not count.
func (j *Journal) HalfFull(s Stream) bool {
	return j.Status(s).Bytes > j.cfg.Limit/2+j.cfg.SegmentSize
}

// OrderAfter returns the order number of the first event numbered above after; false if
// there is none.
func (j *Journal) OrderAfter(s Stream, after uint64) (order uint64, ok bool) {
	return j.streams[s].oldest(after)
}

// Close writes and syncs the accepted records and closes the files. It may be called
// twice. A journal that was not closed is opened as after a crash, without loss.
func (j *Journal) Close() error {
	var errs []error
	for _, s := range j.streams {
		errs = append(errs, s.close())
	}
	j.background.Wait()
	return errors.Join(errs...)
}
