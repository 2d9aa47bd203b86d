package inbound

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a notification is recorded once
//
// A notification has a token, and a key if its request has an Idempotency-Key.
// Both are part of its event. They are known
//
//   - in memory, from Begin until the event is counted,
//   - in the state, from the transaction that counts the event.
//
// Begin refuses a token that is known, and waits for or returns an earlier
// notification with the same key. Crash cases:
//
//   - Before the event is in the journal: nothing is known, the sender repeats the
//     request and it is recorded.
//   - After it is in the journal, before it is counted: at the next start the names
//     are read from the journal's events that are not counted yet.
//   - The journal reported an error and the event became durable nevertheless: the
//     sender repeats the request, and the journal has two events with one key. The
//     counter counts the first only: see Batch.Repeated.
//   - Before an answer is kept: it is put together again from the rows of the push.
//
// None of this depends on the clock, but for the age at which names are removed:
//
//	state.InboundByName <name>                     row
//	state.InboundBySeq <sequence number>/<name>    nothing, to find the oldest

// A name is known for keepFor, and the newest keepNames are known however old they
// are, since a clock that jumps ahead makes all of them old.
const (
	keepFor   = 7 * 24 * time.Hour
	keepNames = 10_000
)

// maxPending is how many names are kept in memory, about 200 bytes each. They
// gather only while nothing is counted because the disk is full.
const maxPending = 1 << 16

// Config is what a Log needs.
type Config struct {
	State state.Store
	// Counted returns the sequence number of the last push event that is counted.
	Counted func() uint64
	// Uncounted calls visit with each recorded notification after Counted.
	Uncounted func(visit func(Recorded)) error
	Now       func() time.Time
}

// Recorded is a notification that has an event.
type Recorded struct {
	Seq  uint64
	Time time.Time
	ID   *ID
}

// Earlier is what became of an earlier notification with the same key.
type Earlier struct {
	Seq    uint64
	Answer *lexicon.NotifyManifestOutput // nil: not complete yet
}

// A Log knows which notifications have an event. It is safe for concurrent use,
// but for its batches, which the counting goroutine alone uses.
type Log struct {
	cfg Config

	mu      sync.Mutex
	loaded  bool
	pending map[string]*entry // by name; those that are not counted yet

	pruned time.Time // when the oldest names were removed last; of the counting goroutine
}

// An entry is a notification in memory.
type entry struct {
	row
	ended chan struct{} // closed by End; nil if it was read
}

// New returns a log. It reads the journal at the first Begin.
func New(cfg Config) *Log { return &Log{cfg: cfg} }

// Begin returns what became of an earlier notification with the same key, or nil:
// the caller then records the event and calls End. It waits while an earlier one
// is between Begin and End. ErrTokenUsed and ErrKeyReused refuse a notification.
func (l *Log) Begin(ctx context.Context, id *ID) (*Earlier, error) {
	for {
		e, err := l.begin(id)
		if err != nil || e == nil {
			return nil, err
		}
		if e.Seq != 0 {
			return &Earlier{e.Seq, e.Answer.output()}, nil
		}
		select {
		case <-e.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin returns a copy of the earlier notification, or adds this one and returns
// nil.
func (l *Log) begin(id *ID) (*entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil {
		return nil, err
	}
	used, err := l.find(id.Token)
	if err != nil {
		return nil, err
	}
	if used != nil {
		return nil, ErrTokenUsed
	}
	if id.Key != "" {
		earlier, err := l.find(id.Key)
		if err != nil {
			return nil, err
		}
		if earlier != nil && earlier.Input != id.Input {
			return nil, ErrKeyReused
		}
		if earlier != nil {
			return earlier, nil
		}
	}
	if len(l.pending) >= maxPending {
		return nil, errTooMany
	}
	e := &entry{row: row{Input: id.Input}, ended: make(chan struct{})}
	for _, name := range id.names() {
		l.pending[name] = e
	}
	return nil, nil
}

// find returns a copy of the notification with a name, nil if there is none. The
// caller holds mu.
func (l *Log) find(name string) (*entry, error) {
	if e := l.pending[name]; e != nil {
		found := *e
		return &found, nil
	}
	r, err := l.stored(name)
	if err != nil || r == nil {
		return nil, err
	}
	return &entry{row: *r}, nil
}

// End reports the sequence number of the notification's event, 0 if there is none.
func (l *Log) End(id *ID, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.pending[id.Token]
	e.Seq = seq
	close(e.ended)
	if seq != 0 && seq > l.cfg.Counted() {
		return
	}
	for _, name := range id.names() {
		delete(l.pending, name)
	}
}

// Counted removes from memory what the state has by now.
func (l *Log) Counted(upTo uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, e := range l.pending {
		if e.Seq != 0 && e.Seq <= upTo {
			delete(l.pending, name)
		}
	}
}

// load reads, once, what an earlier process recorded and did not count. The caller
// holds mu.
func (l *Log) load() error {
	if l.loaded {
		return nil
	}
	l.pending = map[string]*entry{}
	err := l.cfg.Uncounted(func(r Recorded) {
		e := &entry{row: row{Seq: r.Seq, Time: r.Time, Input: r.ID.Input}}
		for _, name := range r.ID.names() {
			l.pending[name] = e
		}
	})
	l.loaded = err == nil
	return err
}

// KeepAnswer keeps a complete answer for as long as the key is known, which is
// longer than the rows of the push are.
func (l *Log) KeepAnswer(id *ID, seq uint64, out lexicon.NotifyManifestOutput) error {
	if id.Key == "" {
		return nil
	}
	r, err := l.stored(id.Key)
	if err != nil || r == nil || r.Seq != seq || r.Answer != nil {
		return err
	}
	r.Answer = newAnswerRow(out)
	var b state.Batch
	if err := r.put(&b, id.Key); err != nil {
		return err
	}
	return l.cfg.State.Commit(&b, state.NoSync)
}
