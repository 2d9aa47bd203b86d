package store

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	logTurn  = 4 << 20   // bytes after which another file is written
	logAhead = 256 << 10 // zeros are written ahead, so that an fsync has no new file size to store
)

// logWriter writes the log of batches: what is committed is in it before it is
// in Pebble, which keeps no log. Pebble's own would be written and fsynced by a
// goroutine of its own, and the two hand-overs cost a lone writer a tenth of
// his time.
//
// The log is a few files, log-0, log-1 and so on, in the database's folder. A
// file whose batches are all in Pebble's tables is written again from its
// beginning; what it held before follows its last record and has lower numbers.
// The format of a record is in log_record.go.
type logWriter struct {
	fs      vfs.FS
	dir     string
	salt    uint64
	durable func() (uint64, error) // the last batch that is in tables

	file  vfs.File // nil: none yet
	name  string
	at    int64 // where the next record goes
	size  int64 // bytes that the file has
	full  []logFile
	files int // that there are; their names end in 0 to files-1

	next   uint64 // number of the next batch
	synced uint64 // number of the last batch that is fsynced
	buf    []byte
}

// logFile is a file that isn't being written.
type logFile struct {
	name string
	last uint64 // number of its last batch
}

// newLogWriter goes on with a log whose batches are all in tables.
func newLogWriter(fs vfs.FS, dir string, files []string, salt, next uint64, durable func() (uint64, error)) *logWriter {
	l := &logWriter{fs: fs, dir: dir, salt: salt, durable: durable, files: len(files), next: next, synced: next - 1}
	for _, name := range files {
		l.full = append(l.full, logFile{name, next - 1})
	}
	return l
}

func logName(n int) string { return fmt.Sprint(logPrefix, n) }

// append writes a batch under the number next, and does not sync it.
func (l *logWriter) append(batch []byte) error {
	if l.file == nil || l.at >= logTurn {
		if err := l.turn(); err != nil {
			return err
		}
	}
	l.buf = appendRecord(l.buf[:0], l.salt, l.next, l.synced, batch)
	end := l.at + int64(len(l.buf))
	if end > l.size {
		l.size = (end + logAhead - 1) / logAhead * logAhead
		l.buf = slices.Grow(l.buf, int(l.size-end))[:l.size-l.at]
		clear(l.buf[end-l.at:])
	}
	if _, err := l.file.WriteAt(l.buf, l.at); err != nil {
		return err
	}
	if cap(l.buf) > 4*logAhead {
		l.buf = nil
	}
	l.at = end
	l.next++
	return nil
}

// beginSync has the disk begin with what was appended, so that sync has less to
// wait for. Where the operating system can't it does all that sync does.
func (l *logWriter) beginSync() error {
	all, err := l.file.SyncTo(l.at)
	if err == nil && all {
		l.synced = l.next - 1
	}
	return err
}

// sync makes durable what was appended.
func (l *logWriter) sync() error {
	if l.file == nil || l.synced == l.next-1 {
		return nil
	}
	if err := l.file.SyncData(); err != nil {
		return err
	}
	l.synced = l.next - 1
	return nil
}

// turn goes on to another file, one that is there if none of its batches is
// needed any more. What the file before holds is durable first, so that the log
// never has a gap between files.
func (l *logWriter) turn() error {
	if l.file != nil {
		if err := l.close(); err != nil {
			return err
		}
		l.full = append(l.full, logFile{l.name, l.next - 1})
	}
	durable, err := l.durable()
	if err != nil {
		return err
	}
	l.at = 0
	for i, f := range l.full {
		if f.last <= durable {
			l.full = slices.Delete(l.full, i, i+1)
			return l.reuse(f.name)
		}
	}
	return l.create()
}

func (l *logWriter) reuse(name string) error {
	f, err := l.fs.OpenReadWrite(l.fs.PathJoin(l.dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.name, l.size = f, name, info.Size()
	return nil
}

func (l *logWriter) create() error {
	name := logName(l.files)
	f, err := l.fs.Create(l.fs.PathJoin(l.dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	l.file, l.name, l.size = f, name, 0
	l.files++
	d, err := l.fs.OpenDir(l.dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		d.Close()
		return err
	}
	return d.Close()
}

// close syncs and closes the file that is being written.
func (l *logWriter) close() error {
	if l.file == nil {
		return nil
	}
	err := l.sync()
	if failed := l.file.Close(); err == nil {
		err = failed
	}
	l.file = nil
	return err
}
