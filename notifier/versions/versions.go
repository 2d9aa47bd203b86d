package versions

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A Version is an announced image. Its name is the tag that its post announces.
type Version struct {
	Repository string    `json:"repository"`
	Name       string    `json:"name"`
	Tags       []string  `json:"tags,omitempty"` // others that the post names
	Digest     string    `json:"digest"`
	Time       time.Time `json:"time"` // of the first push
	Size       int64     `json:"size,omitempty"`
	Images     int       `json:"images,omitempty"` // of an index
	Layers     int       `json:"layers,omitempty"`
	Platforms  []string  `json:"platforms,omitempty"`
	Post       string    `json:"post,omitempty"`     // record key; empty: the version has no post of its own
	Document   string    `json:"document,omitempty"` // record key of its site.standard.document; empty: none
}

// A Store has a row for each version, and two that order them by time:
//
//	state.Versions      <repository hash><name>          the version
//	state.VersionByTime <time><repository hash><name>    the repository
//	state.VersionOfRepo <repository hash><time><name>    nothing
//
// A version has about 500 bytes until its image is deleted. A later version of the same name
// replaces it.
type Store struct{ db state.Store }

// New returns the versions in db.
func New(db state.Store) *Store { return &Store{db} }

const hashLen, timeLen = 16, 8

func hashOf(repository string) []byte {
	h := sha256.Sum256([]byte(repository))
	return h[:hashLen]
}

func key(prefix string, parts ...[]byte) []byte {
	k := []byte(prefix)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func micros(at time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(0, at.UnixMicro())))
}

// Get returns a version; false if there is none of this name.
func (s *Store) Get(repository, name string) (Version, bool, error) {
	return decode(s.db.Get(key(state.Versions, hashOf(repository), []byte(name))))
}

func decode(val []byte, err error) (v Version, ok bool, _ error) {
	if errors.Is(err, state.ErrNotFound) {
		return v, false, nil
	}
	if err == nil {
		err = json.Unmarshal(val, &v)
	}
	if err != nil {
		return v, false, fmt.Errorf("read versions: %w", err)
	}
	return v, true, nil
}

// Put adds a version, or replaces the one of the same name, when b is committed.
func (s *Store) Put(b *state.Batch, v Version) error {
	hash, name := hashOf(v.Repository), []byte(v.Name)
	before, ok, err := decode(b.Get(s.db, key(state.Versions, hash, name)))
	if err != nil {
		return err
	}
	if ok {
		remove(b, before)
	}
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode version: %w", err)
	}
	b.Set(key(state.Versions, hash, name), val)
	b.Set(key(state.VersionByTime, micros(v.Time), hash, name), []byte(v.Repository))
	b.Set(key(state.VersionOfRepo, hash, micros(v.Time), name), nil)
	return nil
}

func remove(b *state.Batch, v Version) {
	hash, name := hashOf(v.Repository), []byte(v.Name)
	b.Delete(key(state.Versions, hash, name))
	b.Delete(key(state.VersionByTime, micros(v.Time), hash, name))
	b.Delete(key(state.VersionOfRepo, hash, micros(v.Time), name))
}

// DeleteImage removes the versions of an image when b is committed.
func (s *Store) DeleteImage(b *state.Batch, repository, digest string) error {
	hash := hashOf(repository)
	return s.db.Scan(state.Prefix(state.Versions+string(hash)), func(_, val []byte) error {
		v, _, err := decode(val, nil)
		if err == nil && v.Digest == digest {
			remove(b, v)
		}
		return err
	})
}

// DeleteRepository removes all versions of a repository when b is committed.
func (s *Store) DeleteRepository(b *state.Batch, repository string) error {
	return s.db.Scan(state.Prefix(state.Versions+string(hashOf(repository))), func(_, val []byte) error {
		v, _, err := decode(val, nil)
		if err == nil {
			remove(b, v)
		}
		return err
	})
}

// RemovePost removes the post, and the document, of a version when b is committed, if the
// version has that post. The version stays.
func (s *Store) RemovePost(b *state.Batch, repository, name, post string) error {
	v, ok, err := decode(b.Get(s.db, key(state.Versions, hashOf(repository), []byte(name))))
	if err != nil || !ok || v.Post != post {
		return err
	}
	v.Post, v.Document = "", ""
	return s.Put(b, v)
}

// Each calls visit with all versions until it returns an error, which is returned.
func (s *Store) Each(visit func(Version) error) error {
	return s.db.Scan(state.Prefix(state.Versions), func(_, val []byte) error {
		v, _, err := decode(val, nil)
		if err != nil {
			return err
		}
		return visit(v)
	})
}

// Page returns up to limit versions after a position, and the position of the next page, nil if
// there is none. A nil position starts at the beginning.
func (s *Store) Page(after []byte, limit int) (page []Version, next []byte, err error) {
	r := state.Prefix(state.Versions)
	if after != nil {
		r = r.After(after)
	}
	err = s.db.Scan(r, func(_, val []byte) error {
		if len(page) == limit {
			last := page[limit-1]
			next = key(state.Versions, hashOf(last.Repository), []byte(last.Name))
			return state.ErrStop
		}
		v, _, err := decode(val, nil)
		page = append(page, v)
		return err
	})
	return page, next, err
}

// OfRepository returns the newest versions of a repository, newest first, at most limit.
func (s *Store) OfRepository(repository string, limit int) ([]Version, error) {
	prefix := state.VersionOfRepo + string(hashOf(repository))
	r := state.Prefix(prefix)
	r.Reverse = true
	var found []Version
	err := s.db.Scan(r, func(k, _ []byte) error {
		if len(found) >= limit {
			return state.ErrStop
		}
		v, ok, err := s.Get(repository, string(k[len(prefix)+timeLen:]))
		if ok {
			found = append(found, v)
		}
		return err
	})
	return found, err
}

// maxExamined limits how many rows Newest reads to find visible versions.
const maxExamined = 1000

// Newest returns the newest versions of the repositories that are visible, newest first, at
// most limit. Those behind 1,000 newer ones are not found.
func (s *Store) Newest(limit int, visible func(repository string) bool) ([]Version, error) {
	r := state.Prefix(state.VersionByTime)
	r.Reverse = true
	var found []Version
	examined := 0
	err := s.db.Scan(r, func(k, repository []byte) error {
		if examined++; len(found) >= limit || examined > maxExamined {
			return state.ErrStop
		}
		if !visible(string(repository)) {
			return nil
		}
		v, ok, err := s.Get(string(repository), string(k[len(state.VersionByTime)+timeLen+hashLen:]))
		if ok {
			found = append(found, v)
		}
		return err
	})
	return found, err
}
