// Package purged remembers which repositories were purged, and by which events.
//
// A purge is an event event.OpPurge of the stream of pushes. Each sink handles it in its turn,
// so records and posts of earlier pushes are removed, and later pushes are published as usual,
// wherever the process is killed. The rows are for the cases that this order does not decide:
//
//	state.PurgedUpTo <repository>   sequence number of the last purge: a push before it that is
//	                                pending, parked, retried or in an outbox, and a version that
//	                                waits to be announced, publish nothing
//	state.Purged <repository>       sequence number of the last purge that the records sink has
//	                                completed
//	state.PushedSince <repository>  sequence number of the last purge after which the repository
//	                                was pushed to: until then a manifest that is found in storage
//	                                is not published
//	state.PurgedImages <image>      nothing: a purge has removed the records of the image, or
//	                                kept it from having any. A reconciliation passes over it
//	                                until it is pushed again; a backfill, which an operator asks
//	                                for, does not
//
// The first row is written when the event is in the journal and again by each sink that begins
// to handle it, since a crash may come in between. The records sink writes the others, in the
// commits that handle the events.
package purged

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A Store has the rows in the state of the notifier. It is safe for concurrent use.
type Store struct {
	db      state.Store
	raising sync.Mutex
}

// New returns the rows in db.
func New(db state.Store) *Store { return &Store{db: db} }

func key(prefix, repository string) []byte { return []byte(prefix + repository) }

// number decodes the result of a Get, 0 if there is no row.
func number(val []byte, err error) (uint64, error) {
	n, err := state.Number(val, err)
	if err != nil {
		return 0, fmt.Errorf("read the purges of repositories: %w", err)
	}
	return n, nil
}

// Raise makes durable that a repository is purged by the event with a sequence number, unless
// a later purge is noted.
func (s *Store) Raise(repository string, seq uint64) error {
	s.raising.Lock()
	defer s.raising.Unlock()
	last, err := s.UpTo(repository)
	if err != nil || seq <= last {
		return err
	}
	var b state.Batch
	b.SetNumber(key(state.PurgedUpTo, repository), seq)
	if err := s.db.Commit(&b, state.Sync); err != nil {
		return fmt.Errorf("note that %s is purged: %w", repository, err)
	}
	return nil
}

// UpTo is the sequence number of the last purge of a repository, 0 if there was none.
func (s *Store) UpTo(repository string) (uint64, error) {
	return number(s.db.Get(key(state.PurgedUpTo, repository)))
}

// After reports whether a repository was purged after the event with a sequence number.
func (s *Store) After(repository string, seq uint64) (bool, error) {
	last, err := s.UpTo(repository)
	return seq < last, err
}

// Last is the highest sequence number of a purge of any repository, 0 if there was none.
func (s *Store) Last() (last uint64, err error) {
	err = s.db.Scan(state.Prefix(state.PurgedUpTo), func(_, val []byte) error {
		seq, err := number(val, nil)
		last = max(last, seq)
		return err
	})
	return last, err
}

// Complete notes in b that the records sink has completed a purge.
func (s *Store) Complete(b *state.Batch, repository string, seq uint64) {
	b.SetNumber(key(state.Purged, repository), seq)
}

// Completed reports whether the records sink has completed a purge, or is past it.
func (s *Store) Completed(repository string, seq uint64) (bool, error) {
	for _, prefix := range []string{state.Purged, state.PushedSince} {
		if done, err := number(s.db.Get(key(prefix, repository))); seq <= done || err != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// NotePush notes in b that a repository was pushed to after its last purge.
func (s *Store) NotePush(b *state.Batch, repository string) error {
	marked, err := s.Marked(b, repository)
	if !marked || err != nil {
		return err
	}
	last, err := s.UpTo(repository)
	b.SetNumber(key(state.PushedSince, repository), last)
	return err
}

// MarkImage notes in b that a purge keeps an image without records.
func (s *Store) MarkImage(b *state.Batch, repository, digest string) {
	b.Set(state.ImageKey(state.PurgedImages, repository, digest), nil)
}

// UnmarkImage removes in b what MarkImage has noted, if it has.
func (s *Store) UnmarkImage(b *state.Batch, repository, digest string) error {
	marked, err := s.ImageMarked(b, repository, digest)
	if marked {
		b.Delete(state.ImageKey(state.PurgedImages, repository, digest))
	}
	return err
}

// ImageMarked reports whether a purge keeps an image without records, as it is after b.
func (s *Store) ImageMarked(b *state.Batch, repository, digest string) (bool, error) {
	_, err := b.Get(s.db, state.ImageKey(state.PurgedImages, repository, digest))
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the purged images: %w", err)
	}
	return true, nil
}

// Marked reports whether a repository was purged and not pushed to since, as it is after b.
func (s *Store) Marked(b *state.Batch, repository string) (bool, error) {
	last, err := s.UpTo(repository)
	if err != nil || last == 0 {
		return false, err
	}
	pushed, err := number(b.Get(s.db, key(state.PushedSince, repository)))
	return pushed < last, err
}
