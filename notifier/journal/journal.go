package journal

import (
	"context"
	"log/slog"
	"time"
)

// A Stream is one of the two sequences of events that a journal keeps.
type Stream uint8

const (
	Pushes Stream = iota // durable when Append returns
	Pulls                // handed to the operating system when Append returns
)

// Config says where a journal lives and how much it may hold.
type Config struct {
	Dir         string        // the journal's own folder; made when missing
	SegmentSize int64         // bytes after which a new segment begins; 0: 16 MiB
	Limit       int64         // bytes one stream may hold on disk; 0: 1 GiB
	Wait        time.Duration // the longest an append waits for the disk; 0: 10 s
	FS          FS            // nil: the operating system's

	// Dropped is told, before the cursor moves, that the limit makes cursor
	// give up the events first to last. After a crash it may be told again.
	// An error keeps the events; it is asked again later. nil: only logged.
	Dropped func(s Stream, cursor string, first, last uint64) error

	Logger *slog.Logger // nil: silent
}

// An Entry is one event as it was appended.
type Entry struct {
	Seq     uint64 // counts the events of one stream from 1
	Mark    uint64 // as given to Append or Complete
	Payload []byte // the caller's to keep
}

// An Intent is a push that was announced and not yet settled.
type Intent struct{ id uint64 }

// Unsettled is an intent that an earlier process left open.
type Unsettled struct {
	Intent  Intent
	Payload []byte
	Mark    uint64
}

// Status describes one stream.
type Status struct {
	First, Last uint64 // the events on disk; First is Last+1 when there are none
	Bytes       int64  // on disk
	Segments    int    // files
}

// A Journal is one open directory. All methods are safe for concurrent use.
type Journal struct{}

func Open(Config) (*Journal, error) { return nil, ErrClosed }

func (*Journal) ID() string    { return "" }
func (*Journal) ClockID() uint { return 0 }
func (*Journal) Mark() uint64  { return 0 }
func (*Journal) Close() error  { return nil }

func (*Journal) Begin(ctx context.Context, mark uint64, payload []byte) (Intent, error) {
	return Intent{}, ErrClosed
}
func (*Journal) Complete(ctx context.Context, in Intent, mark uint64, payload []byte) (uint64, error) {
	return 0, ErrClosed
}
func (*Journal) Abandon(Intent) error   { return ErrClosed }
func (*Journal) Unsettled() []Unsettled { return nil }
func (*Journal) Append(ctx context.Context, s Stream, mark uint64, payload []byte) (uint64, error) {
	return 0, ErrClosed
}
func (*Journal) Read(s Stream, after uint64, maxEntries, maxBytes int) ([]Entry, error) {
	return nil, ErrClosed
}
func (*Journal) Wait(ctx context.Context, s Stream, after uint64) error { return ErrClosed }

func (*Journal) Register(s Stream, name string) error              { return ErrClosed }
func (*Journal) Forget(s Stream, name string) error                { return ErrClosed }
func (*Journal) Cursor(s Stream, name string) uint64               { return 0 }
func (*Journal) SetCursor(s Stream, name string, seq uint64) error { return ErrClosed }
func (*Journal) Cursors(s Stream) map[string]uint64                { return nil }
func (*Journal) Follow(s Stream, seq uint64) error                 { return ErrClosed }
func (*Journal) Status(s Stream) Status                            { return Status{} }
func (*Journal) Oldest(s Stream, after uint64) (mark uint64, ok bool) {
	return 0, false
}
