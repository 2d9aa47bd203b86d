package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// Earlier versions disabled Pebble's write-ahead log and had a log of their own: the
// files log-0, log-1, ... in the folder of the database. This file reads that log. The
// key ~salt exists as long as the log is needed. Each batch of the log sets the key
// ~log to its own number, so ~log is the number of the last batch in the database.
//
// The log is replayed when the database is opened for writing:
//
//  1. The batches after number ~log are committed, in order. A crash leaves a prefix
//     of them in the database, and the next Open continues after it.
//  2. One synced batch deletes ~salt and ~log and sets the new format number. It makes
//     all earlier batches durable. Older programs then refuse the database.
//  3. The files are removed. After a crash the next Open finds no ~salt and removes
//     the rest.
//
// A read-only Open keeps the batches in memory, on top of the database.
//
// A record of the log, integers big endian, padded with zeros to a multiple of 8
// bytes:
//
//	4  CRC-32C of the following fields, without the padding
//	4  length of the batch
//	8  salt, the same in all records since an Open
//	8  number of the batch, counting up
//	8  number of the last durable batch when this one was written
//	…  the batch in Pebble's encoding
//
// Files were overwritten from the beginning once their batches were in tables: the old
// records after the new ones have another salt or lower numbers.

const (
	oldLogPrefix    = "log-"
	oldRecordHeader = 32
)

var (
	keyOldLogged = []byte("~log")
	keyOldSalt   = []byte("~salt")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// replayOldLog replays the old log, if there is one, commits b together with the
// deletion of its keys, and removes the files.
func (s *Store) replayOldLog(b Batch) error {
	l, err := s.findOldLog()
	if err != nil {
		return err
	}
	if l != nil {
		s.log.Info("replaying the log of an earlier version", "store", s.cfg.Name, "dir", s.cfg.Dir)
		if err := l.replay(s.applyOld()); err != nil {
			return err
		}
		for _, key := range [][]byte{keyOldSalt, keyOldLogged} {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
	}
	if err := s.CommitInline(b, Sync); err != nil {
		return err
	}
	return s.removeOldLog()
}

// applyOld returns a function that commits a batch of the old log. It flushes before a
// memtable is full: if no table can be written, the commit would wait for memory
// forever.
func (s *Store) applyOld() func(batch []byte) error {
	size := 0
	return func(batch []byte) error {
		b := Pebble(s).NewBatch()
		if err := b.SetRepr(batch); err != nil {
			return err
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		if size += len(batch); uint64(size) >= s.cfg.MemTable/2 {
			size = 0
			if err := s.flush(); err != nil {
				return err
			}
		}
		return b.Close()
	}
}

func (s *Store) removeOldLog() error {
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, oldLogPrefix) {
			if err := s.cfg.FS.Remove(s.cfg.FS.PathJoin(s.cfg.Dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readOldLog keeps the batches of the old log in memory, on top of a read-only
// database.
func (s *Store) readOldLog() error {
	l, err := s.findOldLog()
	if err != nil || l == nil {
		return err
	}
	all := Pebble(s).NewIndexedBatch()
	s.oldLog = batch{all}
	return l.replay(func(batch []byte) error {
		b := Pebble(s).NewBatch()
		if err := b.SetRepr(batch); err != nil {
			return err
		}
		return errors.Join(all.Apply(b, nil), b.Close())
	})
}

// oldLog reads the log of an earlier version.
type oldLog struct {
	dir     string
	files   map[string][]byte
	salt    uint64
	next    uint64 // number of the next batch
	durable uint64 // highest number that was durable according to a record
}

// findOldLog returns the old log, or nil if the database has none.
func (s *Store) findOldLog() (*oldLog, error) {
	salt, err := s.readOldNumber(keyOldSalt)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	logged, err := s.readOldNumber(keyOldLogged)
	if err != nil && !errors.Is(err, ErrNotFound) { // 0 if all batches are in the log
		return nil, err
	}
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return nil, err
	}
	l := &oldLog{dir: s.cfg.Dir, files: map[string][]byte{}, salt: salt, next: logged + 1}
	for _, name := range names {
		if strings.HasPrefix(name, oldLogPrefix) {
			if l.files[name], err = readFile(s.cfg.FS, s.cfg.FS.PathJoin(s.cfg.Dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (s *Store) readOldNumber(key []byte) (uint64, error) {
	val, err := Read(s, key)
	if err != nil {
		return 0, err
	}
	if len(val) != 8 {
		return 0, fmt.Errorf("value of %s: %w", key, ErrLog)
	}
	return binary.BigEndian.Uint64(val), nil
}

// replay calls apply with the batches that the database lacks; apply may keep them. It
// ends at a record that a crash left incomplete, and returns ErrLog if that record was
// durable.
func (l *oldLog) replay(apply func(batch []byte) error) error {
	first := map[string]uint64{} // number of a file's first batch
	for name, content := range l.files {
		first[name] = math.MaxUint64
		if r, n := l.parse(content); n > 0 {
			first[name] = r.number
		}
	}
	names := slices.SortedFunc(maps.Keys(l.files), func(a, b string) int { return cmp.Compare(first[a], first[b]) })
	for _, name := range names {
		if err := l.replayFile(l.files[name], apply); err != nil {
			return err
		}
	}
	want := len(names)
	if l.next > 1 {
		want = max(want, 1)
	}
	for i := range want {
		if name := fmt.Sprint(oldLogPrefix, i); l.files[name] == nil {
			return fmt.Errorf("%s is missing in %s: %w", name, l.dir, ErrLog)
		}
	}
	if l.durable >= l.next {
		return fmt.Errorf("batch %d is missing in the log files in %s: %w", l.next, l.dir, ErrLog)
	}
	return nil
}

func (l *oldLog) replayFile(content []byte, apply func(batch []byte) error) error {
	readable := true // all records so far could be read
	for len(content) >= oldRecordHeader {
		r, n := l.parse(content)
		l.durable = max(l.durable, r.durable)
		if n == 0 { // later records only show whether this is damage
			readable, n = false, 8
		}
		if readable && r.number == l.next {
			if err := apply(r.batch); err != nil {
				return err
			}
			l.next++
		}
		content = content[n:]
	}
	return nil
}

type oldRecord struct {
	number, durable uint64
	batch           []byte
}

// parse reads the record at the beginning of b and returns its padded length, or 0 if
// there is no valid record with this salt.
func (l *oldLog) parse(b []byte) (r oldRecord, n int) {
	if len(b) < oldRecordHeader || binary.BigEndian.Uint64(b[8:]) != l.salt {
		return oldRecord{}, 0
	}
	length := uint64(binary.BigEndian.Uint32(b[4:]))
	if length > uint64(len(b)-oldRecordHeader) {
		return oldRecord{}, 0
	}
	n = oldRecordHeader + int(length)
	if binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:n], castagnoli) {
		return oldRecord{}, 0
	}
	r.number = binary.BigEndian.Uint64(b[16:])
	r.durable = binary.BigEndian.Uint64(b[24:])
	r.batch = b[oldRecordHeader:n:n]
	return r, min((n+7)&^7, len(b))
}
