package notifier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A call of another registry is known by its token, and by its Idempotency-Key
// if it has one. Both are in its event, and go to the notifier's store in the
// transaction that counts the event. Until then they are in memory, and after
// a restart they are read from the journal. So a call is made once, whatever
// dies in between, and whatever the machine's clock says.
//
//	k/n/<token or key>                  made
//	k/s/<event number, big endian>/<token or key>   nothing, to find the oldest

// callsKept is how long a call is known, and keptCalls how many names are known
// however old they are, for a clock that jumps ahead makes all of them old.
const (
	callsKept = 7 * 24 * time.Hour
	keptCalls = 10_000
)

// maxCalls is how many tokens and keys are in memory, about 200 bytes each. Only
// while nothing is counted, for want of disk space, do they gather.
const maxCalls = 1 << 16

var (
	// ErrToken: an event came with this token already.
	ErrToken = errors.New("this token was used before")
	// ErrKey: the issuer has used this key for something else.
	ErrKey = errors.New("this key was used for something else")

	errManyCalls = fmt.Errorf("more than %d tokens and keys wait to be counted", maxCalls)
)

// Call is what a call of another registry is known by. The names are hashes.
type Call struct {
	Token string `json:"token"`
	Key   string `json:"key,omitempty"`   // empty: it has none
	Input string `json:"input,omitempty"` // what was told, beside a key
}

func newCall(notice *Notice) (*Call, error) {
	c := &Call{Token: hashed("token", notice.Issuer, notice.Token)}
	if notice.Key == "" {
		return c, nil
	}
	input, err := json.Marshal(notice.NotifyManifestInput)
	if err != nil {
		return nil, fmt.Errorf("encode notice: %w", err)
	}
	c.Key, c.Input = hashed("key", notice.Issuer, notice.Key), hashed("input", string(input))
	return c, nil
}

func hashed(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// names are those of the call that it is found by.
func (c *Call) names() []string {
	if c.Key == "" {
		return []string{c.Token}
	}
	return []string{c.Token, c.Key}
}

// made is a call that has an event, or is about to.
type made struct {
	Seq    uint64                        `json:"seq"` // 0: not yet
	Time   time.Time                     `json:"time"`
	Input  string                        `json:"input,omitempty"`
	Answer *lexicon.NotifyManifestOutput `json:"answer,omitempty"` // nil until all of it was known

	ended chan struct{} // closed when it is known whether there is an event
}

// calls are all that are known.
type calls struct {
	n *Notifier

	mu     sync.Mutex
	loaded bool
	recent map[string]*made // by name; those that are not counted yet

	pruned time.Time // when the oldest were last forgotten; for the one who counts
}

// begin gives the earlier call with the same key, or nil: the caller then makes
// the call and says so with end.
func (c *calls) begin(ctx context.Context, call *Call) (*made, error) {
	for {
		earlier, err := c.take(call)
		if err != nil || earlier == nil {
			return nil, err
		}
		if earlier.Seq != 0 {
			return earlier, nil
		}
		select {
		case <-earlier.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take gives a copy of the earlier call, or notes this one as begun.
func (c *calls) take(call *Call) (*made, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		return nil, err
	}
	used, err := c.find(call.Token)
	if err != nil {
		return nil, err
	}
	if used != nil {
		return nil, ErrToken
	}
	if call.Key != "" {
		earlier, err := c.find(call.Key)
		if err != nil {
			return nil, err
		}
		if earlier != nil && earlier.Input != call.Input {
			return nil, ErrKey
		}
		if earlier != nil {
			return earlier, nil
		}
	}
	if len(c.recent) >= maxCalls {
		return nil, errManyCalls
	}
	begun := &made{Input: call.Input, ended: make(chan struct{})}
	for _, name := range call.names() {
		c.recent[name] = begun
	}
	return nil, nil
}

// find gives a copy of the call of that name, nil if there is none. mu is held.
func (c *calls) find(name string) (*made, error) {
	if m := c.recent[name]; m != nil {
		found := *m
		return &found, nil
	}
	return c.stored(name)
}

// end says which event a call has, 0 for none.
func (c *calls) end(call *Call, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := c.recent[call.Token]
	begun.Seq = seq
	close(begun.ended)
	if seq != 0 && seq > c.n.Counter.Latest(uint8(journal.Pushes)) {
		return
	}
	for _, name := range call.names() {
		delete(c.recent, name)
	}
}

// counted forgets what is in the store by now.
func (c *calls) counted(upTo uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, m := range c.recent {
		if m.Seq != 0 && m.Seq <= upTo {
			delete(c.recent, name)
		}
	}
}

// load reads from the journal, once, what an earlier process recorded and did
// not count. mu is held.
func (c *calls) load() error {
	if c.loaded {
		return nil
	}
	c.recent = map[string]*made{}
	for after := c.n.Counter.Latest(uint8(journal.Pushes)); ; {
		entries, err := c.n.Journal.Read(journal.Pushes, after, foldEvents, foldBytes)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			c.loaded = true
			return nil
		}
		for _, entry := range entries {
			after = entry.Seq
			if err := c.learn(entry); err != nil {
				return err
			}
		}
	}
}

// learn notes the call of an event, if it has one. mu is held.
func (c *calls) learn(entry journal.Entry) error {
	if !bytes.Contains(entry.Payload, []byte(`"call":{`)) {
		return nil // decoding all would take long after a long pause
	}
	e, err := decodeEvent(entry.Payload)
	if errors.Is(err, errNewer) {
		return err
	}
	if err != nil || e.Call == nil {
		return nil // the counters give it up
	}
	m := &made{Seq: entry.Seq, Time: e.Time, Input: e.Call.Input}
	for _, name := range e.Call.names() {
		c.recent[name] = m
	}
	return nil
}

// stored reads a call from the store, nil if it is not there or its key is used
// again after callsKept. A token is good once for as long as it is known.
func (c *calls) stored(name string) (*made, error) {
	val, err := c.n.State.Get(callKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	var m made
	if err == nil {
		err = json.Unmarshal(val, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	return &m, nil
}

// answered keeps an answer that will not change any more, for longer than what
// the sinks note. If it is lost, it is made again from their notes.
func (c *calls) answered(call *Call, seq uint64, out lexicon.NotifyManifestOutput) error {
	if call.Key == "" {
		return nil
	}
	m, err := c.stored(call.Key)
	if err != nil || m == nil || m.Seq != seq || m.Answer != nil {
		return err
	}
	m.Answer = &out
	b := &state.Batch{}
	if err := putCall(b, call.Key, m); err != nil {
		return err
	}
	return c.n.State.Commit(b, state.NoSync)
}

// A callBatch gathers the calls of events that are counted together.
type callBatch struct {
	calls *calls
	made  map[string]*made
}

// again says whether an event is of a call that has another one already: its
// first event reached the disk after all, though the journal had not said so.
func (b *callBatch) again(seq uint64, e *Event) (bool, error) {
	if e.Call == nil {
		return false, nil
	}
	if e.Call.Key != "" {
		m := b.made[e.Call.Key]
		if m == nil {
			var err error
			if m, err = b.calls.stored(e.Call.Key); err != nil {
				return false, err
			}
		}
		if m != nil && m.Seq != seq {
			return true, nil
		}
	}
	if b.made == nil {
		b.made = map[string]*made{}
	}
	for _, name := range e.Call.names() {
		b.made[name] = &made{Seq: seq, Time: e.Time, Input: e.Call.Input}
	}
	return false, nil
}

// put adds them to what is counted, and forgets the oldest now and then.
func (b *callBatch) put(batch *state.Batch) error {
	for name, m := range b.made {
		if err := putCall(batch, name, m); err != nil {
			return err
		}
	}
	if b.made == nil {
		return nil
	}
	return b.calls.prune(batch)
}

// prune forgets calls that are older than callsKept, but for the newest
// keptCalls.
func (c *calls) prune(batch *state.Batch) error {
	now := c.n.Now()
	if now.Sub(c.pruned).Abs() < time.Hour {
		return nil
	}
	c.pruned = now
	names := 0
	if err := eachRow(c.n.State, "k/s/", func(string, []byte) error { names++; return nil }); err != nil {
		return err
	}
	return eachRow(c.n.State, "k/s/", func(key string, _ []byte) error {
		if names--; names < keptCalls || len(key) < 9 {
			return state.Stop
		}
		m, err := c.stored(key[9:])
		if err != nil {
			return err
		}
		if m != nil && now.Sub(m.Time) <= callsKept {
			return state.Stop
		}
		batch.Delete(callKey(key[9:]))
		batch.Delete([]byte("k/s/" + key))
		return nil
	})
}

func putCall(b *state.Batch, name string, m *made) error {
	val, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("note a call: %w", err)
	}
	order := binary.BigEndian.AppendUint64([]byte("k/s/"), m.Seq)
	b.Set(callKey(name), val)
	b.Set(append(append(order, '/'), name...), nil)
	return nil
}

func callKey(name string) []byte { return []byte("k/n/" + name) }
