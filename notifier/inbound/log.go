package inbound

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Recording a notification once. A notification has a token, and a key if its request
// has an Idempotency-Key. Both are part of its event. They are known
//
//   - in memory, from Begin until the event is counted,
//   - in the state, from the transaction that counts the event.
//
// Begin refuses a known token, and waits for or returns an earlier notification with
// the same key. Crash cases:
//
//   - Before the event is in the journal: nothing is known; the sender repeats the
//     request, and it is recorded.
//   - After it is in the journal, before it is counted: at the next start the names
//     are read from the events of the journal that are not counted yet.
//   - The journal reported an error and the event became durable nevertheless: the
//     sender repeats the request, and the journal has two events with one key. The
//     counter counts only the first: see Batch.Repeated.
//   - Before the response is kept: it is created again from the rows of the push.
//
// Only the age at which names are removed depends on the system clock. Keys in the state:
//
//	state.InboundByName <name>                     row
//	state.InboundBySeq <sequence number>/<name>    nothing, to find the oldest
//	state.InboundBrief <sequence number>/<name>    the same for unlisted accounts

// A name is known for keepFor. The newest keepNames are known regardless of their age,
// since after a jump of the system clock all of them seem old.
// Names of unlisted accounts, of which anybody can create many, are known for keepBriefly,
// which is longer than a token is valid.
const (
	keepFor     = 7 * 24 * time.Hour
	keepBriefly = time.Hour
	keepNames   = 10_000
)

// maxPending is the maximum number of names in memory, about 200 bytes each. They
// accumulate only while nothing is counted because the disk is full. Those of unlisted
// accounts have a part of it.
const (
	maxPending         = 1 << 16
	maxPendingUnlisted = maxPending / 8
)

// Config configures a Log.
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

// Earlier is the result of an earlier notification with the same key.
type Earlier struct {
	Seq    uint64
	Answer *lexicon.NotifyManifestOutput // the response; nil: not complete yet
}

// A Log knows which notifications have an event. It is safe for concurrent use, except
// for its batches, which only the counting goroutine uses.
type Log struct {
	cfg Config

	mu      sync.Mutex
	loaded  bool
	pending map[string]*entry // by name; those that are not counted yet
	brief   int               // names in pending of unlisted accounts

	pruned time.Time // last removal of the oldest names; only the counting goroutine uses it
}

// An entry is a notification in memory.
type entry struct {
	row
	brief bool          // of an unlisted account
	ended chan struct{} // closed by End; nil if the entry was read from the state
}

// New returns a log. It reads the journal at the first Begin.
func New(cfg Config) *Log { return &Log{cfg: cfg} }

// Begin returns the result of an earlier notification with the same key. If it returns
// nil, the caller records the event and calls End. Begin waits while an earlier
// notification is between Begin and End. It returns ErrTokenUsed or ErrKeyReused for a
// notification that must not be recorded.
func (l *Log) Begin(ctx context.Context, id *ID) (*Earlier, error) {
	for {
		e, err := l.begin(id)
		if err != nil || e == nil {
			return nil, err
		}
		if e.Seq != 0 {
			return &Earlier{e.Seq, e.Answer}, nil
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
	if id.Unlisted && l.brief >= maxPendingUnlisted {
		return nil, ErrBusy
	}
	l.add(id, &entry{row: row{Input: id.Input}, brief: id.Unlisted, ended: make(chan struct{})})
	return nil, nil
}

// add keeps a notification in memory. The caller must hold mu.
func (l *Log) add(id *ID, e *entry) {
	for _, name := range id.names() {
		l.remove(name)
		l.pending[name] = e
		if e.brief {
			l.brief++
		}
	}
}

// remove removes a name from memory. The caller must hold mu.
func (l *Log) remove(name string) {
	if e := l.pending[name]; e != nil && e.brief {
		l.brief--
	}
	delete(l.pending, name)
}

// find returns a copy of the notification with a name, or nil. The caller must hold mu.
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
		l.remove(name)
	}
}

// Counted removes from memory the notifications that are counted, which are in the
// state.
func (l *Log) Counted(upTo uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, e := range l.pending {
		if e.Seq != 0 && e.Seq <= upTo {
			l.remove(name)
		}
	}
}

// load reads, once, the notifications that an earlier process recorded and did not
// count. The caller must hold mu.
func (l *Log) load() error {
	if l.loaded {
		return nil
	}
	l.pending, l.brief = map[string]*entry{}, 0
	err := l.cfg.Uncounted(func(r Recorded) {
		l.add(r.ID, &entry{row: row{Seq: r.Seq, Time: r.Time, Input: r.ID.Input}, brief: r.ID.Unlisted})
	})
	l.loaded = err == nil
	return err
}

// KeepAnswer keeps a complete response as long as the key is known, which is longer
// than the rows of the push are kept.
func (l *Log) KeepAnswer(id *ID, seq uint64, out lexicon.NotifyManifestOutput) error {
	if id.Key == "" {
		return nil
	}
	r, err := l.stored(id.Key)
	if err != nil || r == nil || r.Seq != seq || r.Answer != nil {
		return err
	}
	r.Answer = &out
	var b state.Batch
	if err := r.put(&b, id.Key); err != nil {
		return err
	}
	return l.cfg.State.Commit(&b, state.NoSync)
}
