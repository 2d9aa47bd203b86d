// Package ledger remembers which manifests have records in the account's
// repository: under which keys, and in which repositories of the registry the
// manifest is. So a repeated push, a second tag, a push to another repository
// and a delete each end with every record there once, or not at all.
//
// An entry is there from the batch that wrote its records until the batch that
// deleted them. Entries are changed in the caller's batch, together with what
// else that batch settles. What is on its way to the account is the caller's.
//
// An entry costs about 100 bytes and goes with its manifest.
package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/state"
)

// An Entry says where the records of one manifest of one owner are.
type Entry struct {
	// First is the time (unix microseconds) in the TID before those of the
	// records; ClockID is in each of them.
	First   int64 `json:"first"`
	ClockID uint  `json:"clockId"`
	Records int   `json:"records"` // how many TIDs follow First
	// Repositories have the manifest, sorted. The records go with the last of
	// them.
	Repositories []string `json:"repositories,omitempty"`
}

// With returns the entry with one more repository.
func (e Entry) With(repository string) Entry {
	if !slices.Contains(e.Repositories, repository) {
		e.Repositories = append(slices.Clone(e.Repositories), repository)
		slices.Sort(e.Repositories)
	}
	return e
}

// Without returns the entry without a repository.
func (e Entry) Without(repository string) Entry {
	e.Repositories = slices.DeleteFunc(slices.Clone(e.Repositories), func(r string) bool { return r == repository })
	return e
}

// In reports whether the repository has the manifest.
func (e Entry) In(repository string) bool { return slices.Contains(e.Repositories, repository) }

// A Ledger keeps entries in the notifier's store.
type Ledger struct{ db state.Store }

// New returns the ledger that lives in db.
func New(db state.Store) *Ledger { return &Ledger{db} }

// Get returns the entry of a manifest of an owner, false if there is none.
func (l *Ledger) Get(owner, digest string) (Entry, bool, error) {
	val, err := l.db.Get(key(owner, digest))
	return found(digest, val, err)
}

// GetIn is Get after the batch is committed.
func (l *Ledger) GetIn(b *state.Batch, owner, digest string) (Entry, bool, error) {
	val, err := b.Get(l.db, key(owner, digest))
	return found(digest, val, err)
}

// found decodes what a Get of the store returned.
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

// All calls visit with every entry, until it returns an error.
func (l *Ledger) All(visit func(owner, digest string, e Entry) error) error {
	return l.scan(state.Prefix(prefix), visit)
}

// A Manifest is an entry and what it is of.
type Manifest struct {
	Owner, Digest string
	Entry
}

// Page returns up to limit entries behind a place, in the order of All, and the
// place of the next page, nil if there is none. A nil place is the beginning.
func (l *Ledger) Page(behindKey []byte, limit int) (page []Manifest, next []byte, err error) {
	r := state.Prefix(prefix)
	if behindKey != nil {
		r = r.After(behindKey)
	}
	err = l.scan(r, func(owner, digest string, e Entry) error {
		if len(page) == limit {
			last := page[limit-1]
			next = key(last.Owner, last.Digest)
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

// Delete adds the end of an entry to the batch.
func (l *Ledger) Delete(b *state.Batch, owner, digest string) { b.Delete(key(owner, digest)) }

// Clear adds the end of all entries to the batch.
func (l *Ledger) Clear(b *state.Batch) { b.DeleteRange(state.Prefix(prefix)) }

// A key is the prefix, the digest in binary and the owner, so that the entries
// of a digest are together. A digest begins with its length in bytes, one byte;
// 0: it is not in hexadecimal, stands as text and ends with a zero byte.
const prefix = state.Ledger

// algorithms by length of their digests in bytes
var algorithms = map[int]string{32: "sha256", 48: "sha384", 64: "sha512"}

func key(owner, digest string) []byte {
	k := []byte(prefix)
	algorithm, text, _ := strings.Cut(digest, ":")
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw) > 0 && algorithms[len(raw)] == algorithm && hex.EncodeToString(raw) == text {
		k = append(append(k, byte(len(raw))), raw...)
	} else {
		k = append(append(append(k, 0), digest...), 0)
	}
	return append(k, owner...)
}

var errKey = errors.New("damaged key")

func parseKey(k []byte) (owner, digest string, err error) {
	k = k[len(prefix):]
	if len(k) == 0 {
		return "", "", errKey
	}
	n, k := int(k[0]), k[1:]
	if n == 0 {
		text, rest, ok := bytes.Cut(k, []byte{0})
		if !ok {
			return "", "", errKey
		}
		return string(rest), string(text), nil
	}
	algorithm := algorithms[n]
	if algorithm == "" || len(k) < n {
		return "", "", errKey
	}
	return string(k[n:]), algorithm + ":" + hex.EncodeToString(k[:n]), nil
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
