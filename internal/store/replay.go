package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// Keys of ours, 8 bytes big endian each.
var (
	// keyLogged holds the number of the last batch that is in the database. Each
	// batch sets it, so the tables say from which on they need the log.
	keyLogged = []byte("~log")

	// keySalt holds the salt of the log's records.
	keySalt = []byte("~salt")
)

// readNumber is 0 in a new database.
func readNumber(r pebble.Reader, key []byte) (uint64, error) {
	val, err := Read(r, key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return decodeNumber(val)
}

func decodeNumber(val []byte) (uint64, error) {
	if len(val) != 8 {
		return 0, errors.New("what it notes of its log is damaged: restore it from a backup")
	}
	return binary.BigEndian.Uint64(val), nil
}

// durable is the number of the last batch that is in tables.
func (s *Store) durable() (uint64, error) {
	it, err := s.DB.NewIter(&pebble.IterOptions{
		LowerBound:                keyLogged,
		UpperBound:                append(keyLogged[:len(keyLogged):len(keyLogged)], 0),
		OnlyReadGuaranteedDurable: true,
	})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.First() {
		return 0, it.Error()
	}
	val, err := it.ValueAndErr()
	if err != nil {
		return 0, err
	}
	return decodeNumber(val)
}

// replay commits what the log has and the tables don't, and makes the log ready
// for more. It flushes before a memtable is full: on a disk that takes no tables
// Commit would wait without end for memory.
func (s *Store) replay() error {
	size := 0
	r, err := s.logReader(func(b *pebble.Batch) error {
		size += b.Len()
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		if uint64(size) < s.cfg.MemTable/2 {
			return nil
		}
		size = 0
		return s.flush()
	})
	if err != nil {
		return err
	}
	files, err := r.read()
	if err != nil {
		return err
	}
	var salt [8]byte
	rand.Read(salt[:])
	if err := s.DB.Set(keySalt, salt[:], pebble.NoSync); err != nil {
		return err
	}
	// A crash may have left in the log what the disk does not have. No record is
	// written before the tables have its salt, nor before they have the format:
	// there it is looked for by programs that know no log.
	if err := s.flush(); err != nil {
		return err
	}
	s.wal = newLogWriter(s.cfg.FS, s.cfg.Dir, files, binary.BigEndian.Uint64(salt[:]), r.next, s.durable)
	return nil
}

// readUnread keeps what the log has and the tables don't in memory, beside a
// database that is not to be changed.
func (s *Store) readUnread() error {
	s.unread = s.DB.NewIndexedBatch()
	r, err := s.logReader(func(b *pebble.Batch) error { return s.unread.Apply(b, nil) })
	if err != nil {
		return err
	}
	_, err = r.read()
	return err
}

// logReader gives to each what the log has and the tables don't.
func (s *Store) logReader(each func(*pebble.Batch) error) (*logReader, error) {
	logged, err := readNumber(s.DB, keyLogged)
	if err != nil {
		return nil, err
	}
	salt, err := readNumber(s.DB, keySalt)
	if err != nil {
		return nil, err
	}
	return &logReader{fs: s.cfg.FS, dir: s.cfg.Dir, salt: salt, next: logged + 1, each: func(batch []byte) error {
		b := s.DB.NewBatch()
		if err := b.SetRepr(batch); err != nil {
			return err
		}
		if err := each(b); err != nil {
			return err
		}
		return b.Close()
	}}, nil
}

// all reads what was committed, also if the database is read only.
func (s *Store) all() pebble.Reader {
	if s.unread != nil {
		return s.unread
	}
	return s.DB
}

// Get is that of Pebble, and so are the other methods of a pebble.Reader.
func (s *Store) Get(key []byte) ([]byte, io.Closer, error) { return s.all().Get(key) }

func (s *Store) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) { return s.all().NewIter(o) }

func (s *Store) NewIterWithContext(ctx context.Context, o *pebble.IterOptions) (*pebble.Iterator, error) {
	return s.all().NewIterWithContext(ctx, o)
}

// Damage is what is wrong with the log of a database that is read only, or
// with what says from which batch on it is needed: what can be read is then how
// it once was. To write such a database is an error of Open.
func (s *Store) Damage() error { return s.damage }
