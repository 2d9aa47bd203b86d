// Package parked keeps pushes whose records are not written yet because the handle of
// their owner is not resolved, so that the records sink can go on with other events.
//
// The sink adds a push in the commit that moves the sink past it, so it is in the journal
// or here. Once the handle is resolved, the caller notes the DID, appends each push to the
// journal again, with the DID, and removes it here. After a crash in between it is appended
// again with the same DID, and the second time has no effect.
//
// What is parked is bounded; a push beyond the limits is a dead letter.
package parked

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// GiveUpAfter is how long a push is parked.
const GiveUpAfter = 3 * 24 * time.Hour

// Limits of what is parked.
const (
	maxEvents = 10_000
	maxBytes  = 64 << 20
	maxOf     = 1_000 // events of one handle
)

// ErrFull is returned for a push beyond the limits.
var ErrFull = errors.New("too many pushes wait for handles to be resolved")

// A Push is a parked push.
type Push struct {
	Seq    uint64          `json:"-"`
	Handle string          `json:"-"` // of the owner
	Image  string          `json:"image"`
	Since  time.Time       `json:"since"`
	Event  json.RawMessage `json:"event"` // as Event.Encode returns it
}

// Image is the name of a manifest in a repository.
func Image(repository, digest string) string { return repository + "@" + digest }

// Repository returns the repository of the push.
func (p *Push) Repository() string {
	repository, _, _ := strings.Cut(p.Image, "@")
	return repository
}

// known is what the Store has in memory of a push.
type known struct {
	image string
	size  int
	since time.Time
}

// A Store keeps parked pushes in the state of the notifier. Its methods are safe for
// concurrent use.
type Store struct {
	db state.Store

	mu     sync.Mutex
	pushes map[string]map[uint64]known // by handle and sequence number
	bytes  int
	// uncommitted: there are pushes of which it is not known whether they are committed.
	uncommitted bool
	added       sink.Signal
}

// New returns the store of what is parked in db.
func New(db state.Store) (*Store, error) {
	s := &Store{db: db}
	if err := s.reload(); err != nil {
		return nil, err
	}
	return s, s.removeUnused()
}

// removeUnused removes noted DIDs of handles without pushes, which a crash may have left.
func (s *Store) removeUnused() error {
	var b state.Batch
	err := s.db.Scan(state.Prefix(state.ParkedOwners), func(key, _ []byte) error {
		if s.pushes[string(key[len(state.ParkedOwners):])] == nil {
			b.Delete(bytes.Clone(key))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read parked pushes: %w", err)
	}
	return s.db.Commit(&b, state.Sync)
}

// reload reads what is parked. The caller holds mu, unless s is new.
func (s *Store) reload() error {
	s.pushes, s.bytes = map[string]map[uint64]known{}, 0
	err := s.db.Scan(state.Prefix(state.Parked), func(key, val []byte) error {
		p, err := decode(key, val)
		if err == nil {
			s.note(p, len(val))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read parked pushes: %w", err)
	}
	s.uncommitted = false
	return nil
}

// note adds a push to what is in memory. The caller holds mu.
func (s *Store) note(p *Push, size int) {
	if s.pushes[p.Handle] == nil {
		s.pushes[p.Handle] = map[uint64]known{}
	}
	s.bytes += size - s.pushes[p.Handle][p.Seq].size
	s.pushes[p.Handle][p.Seq] = known{p.Image, size, p.Since}
}

// Put adds a push to b, or returns ErrFull. The caller calls Committed after the commit of
// b, or with an error if b is not committed.
func (s *Store) Put(b *state.Batch, p *Push) error {
	val, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("park a push: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for _, of := range s.pushes {
		total += len(of)
	}
	if total >= maxEvents || s.bytes+len(val) > maxBytes || len(s.pushes[p.Handle]) >= maxOf {
		return fmt.Errorf("%w, such as %s", ErrFull, p.Handle)
	}
	b.Set(key(p.Handle, p.Seq), val)
	s.note(p, len(val))
	s.uncommitted = true
	return nil
}

// Committed is called with the result of a commit that may have pushes of Put. It returns
// the same error, and wakes those who wait for pushes.
func (s *Store) Committed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.uncommitted {
		return err
	}
	if err != nil {
		return errors.Join(err, s.reload())
	}
	s.uncommitted = false
	s.added.Send()
	return nil
}

// Wait returns a channel that is closed when pushes are parked.
func (s *Store) Wait() <-chan struct{} { return s.added.Wait() }

// Handles returns the handles that pushes wait for.
func (s *Store) Handles() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.pushes))
}

// Of returns the pushes that wait for a handle, in their order and without their events.
func (s *Store) Of(handle string) []Push {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := make([]Push, 0, len(s.pushes[handle]))
	for _, seq := range slices.Sorted(maps.Keys(s.pushes[handle])) {
		k := s.pushes[handle][seq]
		of = append(of, Push{Seq: seq, Handle: handle, Image: k.image, Since: k.since})
	}
	return of
}

// Find returns the pushes of an image, without their events.
func (s *Store) Find(image string) (found []Push) {
	for _, handle := range s.Handles() {
		found = append(found, slices.DeleteFunc(s.Of(handle), func(p Push) bool { return p.Image != image })...)
	}
	return found
}

// Len returns how many pushes are parked.
func (s *Store) Len() (total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.pushes {
		total += len(of)
	}
	return total
}

// Get returns a parked push.
func (s *Store) Get(handle string, seq uint64) (*Push, error) {
	k := key(handle, seq)
	val, err := s.db.Get(k)
	if err != nil {
		return nil, fmt.Errorf("read parked push: %w", err)
	}
	return decode(k, val)
}

// Remove removes pushes, durably.
func (s *Store) Remove(handle string, seqs ...uint64) error {
	var b state.Batch
	for _, seq := range seqs {
		b.Delete(key(handle, seq))
	}
	if err := s.db.Commit(&b, state.Sync); err != nil {
		return fmt.Errorf("remove parked pushes: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seq := range seqs {
		s.bytes -= s.pushes[handle][seq].size
		delete(s.pushes[handle], seq)
	}
	if len(s.pushes[handle]) == 0 {
		delete(s.pushes, handle)
	}
	return nil
}

// Resolve notes the DID of a handle durably, and returns it. If an earlier DID is noted,
// pushes may have been appended with it, and it is returned instead.
func (s *Store) Resolve(handle, did string) (string, error) {
	k := []byte(state.ParkedOwners + handle)
	noted, err := s.db.Get(k)
	if err == nil {
		return string(noted), nil
	}
	if errors.Is(err, state.ErrNotFound) {
		err = state.Set(s.db, k, []byte(did), state.Sync)
	}
	if err != nil {
		return "", fmt.Errorf("note the DID of parked pushes: %w", err)
	}
	return did, nil
}

// Done removes what Resolve noted.
func (s *Store) Done(handle string) error {
	return state.Delete(s.db, []byte(state.ParkedOwners+handle), state.Sync)
}

// A key is the prefix, the handle, a zero byte and the sequence number.
func key(handle string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(state.Parked+handle+"\x00"), seq)
}

func decode(key, val []byte) (*Push, error) {
	handle, seq, ok := strings.Cut(string(key[len(state.Parked):]), "\x00")
	p := &Push{Handle: handle}
	err := json.Unmarshal(val, p)
	if !ok || len(seq) != 8 {
		err = errors.New("damaged key")
	}
	if err != nil {
		return nil, fmt.Errorf("decode parked push: %w", err)
	}
	p.Seq = binary.BigEndian.Uint64([]byte(seq))
	return p, nil
}
