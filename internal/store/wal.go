package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// This file detects damage in Pebble's write-ahead log (WAL).
//
// The newest WAL usually ends in a record that a crash left incomplete. Pebble stops
// reading there and has to decide whether the rest was never durable or is damaged. It
// compares the position with the synced offsets in later chunks. However, it checks
// only later 32 KiB blocks, Pebble 2.1 counts only the bytes of incomplete blocks as
// synced, and the first WAL of a database has no synced offsets. It therefore treats
// most damage as the end of the log, and would open the database in an earlier state
// without an error.
//
// Commit therefore adds to each batch the sequence number up to which the WAL was
// durable at that time (the durable mark). An unreadable record is damaged if a later
// record has a mark that covers it. Damage that no readable record follows cannot be
// detected: in the last record, or in the ones before it if their headers are damaged
// too. It looks like a crash.
//
// WALs before the newest were closed, and Pebble reports damage in them. It cannot
// detect that the whole file of a WAL is missing.
//
// Open returns damage as ErrLog. A read-only Open reports it with Damage, and shows the
// database as it was before the damaged record: walView hides the rest from Pebble.

// ErrLog is the error for a damaged write-ahead log. Data written before the damage can
// be read. It is a corruption error for pebble.IsCorruptionError.
var ErrLog error = logError{}

type logError struct{}

func (logError) Error() string { return "damaged write-ahead log" }

func (logError) Is(target error) bool { return target == pebble.ErrCorruption }

// The format of the WAL, see package record of Pebble. A header has a CRC, the length
// (2 bytes at 4), the type (at 6), the log number (4 bytes at 7), and in types from
// walSyncChunks on the synced offset.
const (
	walBlock      = 32 << 10
	walHeader     = 11
	walSyncHeader = 19
	walSyncChunks = 9
)

// addDurableMark appends the durable mark to a batch. Pebble writes it only to the WAL.
func addDurableMark(b *pebble.Batch, seq uint64) error {
	return b.LogData(binary.BigEndian.AppendUint64(nil, seq), nil)
}

// durableMark returns the mark of an encoded batch, or 0.
func durableMark(batch []byte) uint64 {
	r := batchrepr.Read(batch)
	for {
		kind, data, _, ok, err := r.Next()
		if !ok || err != nil {
			return 0
		}
		if kind == pebble.InternalKeyKindLogData && len(data) == 8 {
			return binary.BigEndian.Uint64(data)
		}
	}
}

// walEnd is the end of the readable part of a damaged or torn WAL.
type walEnd struct {
	name   string
	offset int64
}

// damagedWAL returns the end of the readable part of the newest WAL, or nil if that is
// not damaged.
func damagedWAL(fsys vfs.FS, dir string) (*walEnd, error) {
	logs, err := wal.Scan(wal.Dir{FS: fsys, Dirname: dir})
	if errors.Is(err, fs.ErrNotExist) || len(logs) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, path := logs[len(logs)-1].SegmentLocation(0)
	end, damaged, err := readWAL(fsys, path)
	if !damaged {
		end = nil
	}
	return end, err
}

// readWAL returns the end of the readable part of a WAL, or nil if the WAL was closed.
// The WAL is damaged if later records show that the next record was durable.
func readWAL(fsys vfs.FS, path string) (end *walEnd, damaged bool, err error) {
	name := fsys.PathBase(path)
	number, _, ok := wal.ParseLogFilename(name)
	if !ok {
		return nil, false, fmt.Errorf("%s is not a write-ahead log", path)
	}
	content, err := readFile(fsys, path)
	if err != nil {
		return nil, false, err
	}
	end = &walEnd{name: name}
	next := uint64(0) // sequence number of the next batch, if known
	err = eachBatch(content, uint64(number), func(batch []byte, after int64) bool {
		if h, ok := batchrepr.ReadHeader(batch); ok {
			next = uint64(h.SeqNum) + uint64(h.Count)
		}
		end.offset = after
		return true
	})
	if errors.Is(err, io.EOF) {
		return nil, false, nil
	}
	laterBatches(content, uint64(number), end.offset, func(batch []byte) bool {
		if h, ok := batchrepr.ReadHeader(batch); ok && next == 0 {
			next = uint64(h.SeqNum) - 1 // of the last unreadable batch
		}
		damaged = next > 0 && durableMark(batch) >= next
		return !damaged
	})
	return end, damaged, nil
}

// eachBatch calls yield with the batches of a WAL and the offset after each, until
// yield returns false. It returns io.EOF at the end of a closed WAL, and another error
// at an unreadable record.
func eachBatch(content []byte, number uint64, yield func(batch []byte, after int64) bool) error {
	r := newRecordReader(record.NewReader, bytes.NewReader(content), number)
	for {
		rec, err := r.Next()
		if err != nil {
			return err
		}
		batch, err := io.ReadAll(rec)
		if err != nil {
			return err
		}
		if !yield(batch, r.Offset()) {
			return nil
		}
	}
}

// newRecordReader calls record.NewReader. The type parameter stands for the type of a
// file number, which is internal to Pebble.
func newRecordReader[N ~uint64](open func(io.Reader, N) *record.Reader, r io.Reader, number uint64) *record.Reader {
	return open(r, N(number))
}

// laterBatches calls yield with batches after an unreadable chunk at an offset, until
// yield returns false. It searches at the beginning of each later block, and after the
// chunk according to the length in its header.
func laterBatches(content []byte, number uint64, offset int64, yield func(batch []byte) bool) {
	more := true
	from := func(chunks []byte) {
		if len(chunks) < walHeader || binary.LittleEndian.Uint32(chunks[7:]) != uint32(number) {
			return // of an earlier WAL: files are reused
		}
		eachBatch(chunks, number, func(batch []byte, _ int64) bool {
			more = yield(batch)
			return more
		})
	}
	size := int64(len(content))
	for more && offset+walHeader <= size {
		block := min((offset/walBlock+1)*walBlock, size)
		if next := offset + chunkSize(content[offset:]); next < block {
			from(content[next:block])
		}
		if offset = block; more && offset < size {
			from(content[offset:])
		}
	}
}

// chunkSize returns the size of a chunk according to its header.
func chunkSize(chunk []byte) int64 {
	size := walHeader + int64(binary.LittleEndian.Uint16(chunk[4:]))
	if chunk[6] >= walSyncChunks {
		size += walSyncHeader - walHeader
	}
	return size
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// walView is the file system that Pebble uses. It records the WAL that Pebble opened
// last, which is the one that could not be replayed. If end is set, it hides the WALs
// and bytes after it.
type walView struct {
	vfs.FS
	opened string // path
	end    *walEnd
}

func (v *walView) List(dir string) ([]string, error) {
	names, err := v.FS.List(dir)
	if v.end == nil {
		return names, err
	}
	last, _, _ := wal.ParseLogFilename(v.end.name)
	kept := names[:0]
	for _, name := range names {
		if n, _, ok := wal.ParseLogFilename(name); !ok || n <= last {
			kept = append(kept, name)
		}
	}
	return kept, err
}

func (v *walView) Open(path string, options ...vfs.OpenOption) (vfs.File, error) {
	f, err := v.FS.Open(path, options...)
	if _, _, ok := wal.ParseLogFilename(v.FS.PathBase(path)); !ok || err != nil {
		return f, err
	}
	v.opened = path
	if v.end == nil || v.FS.PathBase(path) != v.end.name {
		return f, nil
	}
	return &shortened{f, v.end.offset}, nil
}

// Unwrap lets Pebble detect the type of the file system.
func (v *walView) Unwrap() vfs.FS { return v.FS }

// shortened is a file of which only the next left bytes can be read.
type shortened struct {
	vfs.File
	left int64
}

func (s *shortened) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.File.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}
