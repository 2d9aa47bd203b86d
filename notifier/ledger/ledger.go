// Package ledger stores which manifests have records in the account's repo: the
// record keys, and the repositories of the registry that claim the records.
//
// The protocol of claims:
//
//   - The first push of a manifest writes its records and an entry with the claim
//     of its repository. The record keys follow from First, ClockID and Records.
//   - A repeated push or a second tag finds the claim and writes nothing. A push to
//     another repository adds a claim to the entry, and no records.
//   - A delete removes the claim of its repository. The records and the entry are
//     deleted with the last claim.
//
// An entry is added or deleted in the same batch of the state that confirms the writes
// to the account, together with the outbox and the tombstones, which belong to the
// caller. After a crash between the writes to the account and that batch, the outbox
// still has the writes: they are confirmed first, and the same entry follows. The
// ledger thus never lists records whose creation is not confirmed.
//
// An entry has about 100 bytes.
package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/notifier/state"
)

// An Entry has the record keys of a manifest of one owner.
type Entry struct {
	// First is the time (unix microseconds) in the TID before those of the
	// records; ClockID is in each of them.
	First   int64 `json:"first"`
	ClockID uint  `json:"clockId"`
	Records int   `json:"records"` // how many TIDs follow First
	// Repositories are those with a claim, sorted. The records are deleted with the last.
	Repositories []string `json:"repositories,omitempty"`
}

// UnknownRepository stands in a rebuilt entry for the repositories that have the manifest,
// which its records do not name. A reconciliation finds them in storage.
const UnknownRepository = ""

// With returns the entry with the claim of a repository.
func (e Entry) With(repository string) Entry {
	if !slices.Contains(e.Repositories, repository) {
		e.Repositories = append(slices.Clone(e.Repositories), repository)
		slices.Sort(e.Repositories)
	}
	return e
}

// Without returns the entry without the claim of a repository.
func (e Entry) Without(repository string) Entry {
	e.Repositories = slices.DeleteFunc(slices.Clone(e.Repositories), func(r string) bool { return r == repository })
	return e
}

// In reports whether the repository has a claim.
func (e Entry) In(repository string) bool { return slices.Contains(e.Repositories, repository) }

// A Ledger stores entries in the state of the notifier.
type Ledger struct{ db state.Store }

// New returns the ledger in db.
func New(db state.Store) *Ledger { return &Ledger{db} }

// Get returns the entry of a manifest of an owner. The result is false if there is none.
func (l *Ledger) Get(owner, digest string) (Entry, bool, error) {
	val, err := l.db.Get(key(owner, digest))
	return found(digest, val, err)
}

// GetIn returns what Get will return after the commit of b.
func (l *Ledger) GetIn(b *state.Batch, owner, digest string) (Entry, bool, error) {
	val, err := b.Get(l.db, key(owner, digest))
	return found(digest, val, err)
}

// found decodes the result of a Get.
func found(digest string, val []byte, err error) (Entry, bool, error) {
	if errors.Is(err, state.ErrNotFound) {
		return Entry{}, false, nil
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("read ledger: %w", err)
	}
	e, err := decode(val)
	if err != nil {
		return Entry{}, false, fmt.Errorf("read ledger of %s: %w", digest, err)
	}
	return e, true, nil
}

// Owners returns the entries of a manifest by owner. The owner of a registry's
// images can change, so there may be several.
func (l *Ledger) Owners(digest string) (map[string]Entry, error) {
	owners := map[string]Entry{}
	err := l.scan(state.Prefix(string(key("", digest))), func(owner, found string, e Entry) error {
		if found == digest {
			owners[owner] = e
		}
		return nil
	})
	return owners, err
}

// All calls visit with each entry until it returns an error.
func (l *Ledger) All(visit func(owner, digest string, e Entry) error) error {
	return l.scan(state.Prefix(prefix), visit)
}

// A Manifest is an entry with its owner and digest.
type Manifest struct {
	Owner, Digest string
	Entry
}

// Key is the key after which Page continues with the next entry.
func (m *Manifest) Key() []byte { return key(m.Owner, m.Digest) }

// Page returns up to limit entries after a key, in the order of All, and the key
// for the next page, nil if there is none. A nil key starts at the beginning.
func (l *Ledger) Page(afterKey []byte, limit int) (page []Manifest, next []byte, err error) {
	r := state.Prefix(prefix)
	if afterKey != nil {
		r = r.After(afterKey)
	}
	err = l.scan(r, func(owner, digest string, e Entry) error {
		if len(page) == limit {
			next = page[limit-1].Key()
			return state.ErrStop
		}
		page = append(page, Manifest{owner, digest, e})
		return nil
	})
	return page, next, err
}

func (l *Ledger) scan(r state.Range, visit func(owner, digest string, e Entry) error) error {
	return l.db.Scan(r, func(k, val []byte) error {
		owner, digest, err := parseKey(k)
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		e, err := decode(val)
		if err != nil {
			return fmt.Errorf("read ledger of %s: %w", digest, err)
		}
		return visit(owner, digest, e)
	})
}

// Put adds an entry to the batch.
func (l *Ledger) Put(b *state.Batch, owner, digest string, e Entry) {
	b.Set(key(owner, digest), e.encode())
}

// Delete adds the deletion of an entry to the batch.
func (l *Ledger) Delete(b *state.Batch, owner, digest string) { b.Delete(key(owner, digest)) }

// Clear adds the deletion of all entries to the batch.
func (l *Ledger) Clear(b *state.Batch) { b.DeleteRange(state.Prefix(prefix)) }

// A key is the prefix, the digest and the owner, so that the entries of a digest are
// adjacent.
const prefix = state.Ledger

func key(owner, digest string) []byte {
	return append(AppendDigest([]byte(prefix), digest), owner...)
}

func parseKey(k []byte) (owner, digest string, err error) {
	digest, rest, err := CutDigest(k[len(prefix):])
	return string(rest), digest, err
}

// encode writes First, ClockID and Records as varints, then each repository
// with its length before it.
func (e Entry) encode() []byte {
	b := binary.AppendVarint(make([]byte, 0, 48), e.First)
	b = binary.AppendUvarint(b, uint64(e.ClockID))
	b = binary.AppendUvarint(b, uint64(e.Records))
	for _, r := range e.Repositories {
		b = binary.AppendUvarint(b, uint64(len(r)))
		b = append(b, r...)
	}
	return b
}

var errEntry = errors.New("damaged entry")

func decode(b []byte) (e Entry, err error) {
	first, n := binary.Varint(b)
	if n <= 0 {
		return e, errEntry
	}
	e.First, b = first, b[n:]
	var numbers [2]uint64
	for i := range numbers {
		if numbers[i], n = binary.Uvarint(b); n <= 0 {
			return e, errEntry
		}
		b = b[n:]
	}
	e.ClockID, e.Records = uint(numbers[0]), int(numbers[1])
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return e, errEntry
		}
		e.Repositories = append(e.Repositories, string(b[n:n+int(size)]))
		b = b[n+int(size):]
	}
	return e, nil
}
