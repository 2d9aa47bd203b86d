package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// listName is the name of the list of files in a backup: a line with the Header, a line
// for each file in the order of filepath.WalkDir, and a line with the totals.
const listName = "backup.jsonl"

const format = 1

// maxLine limits a line of the list, in bytes.
const maxLine = 64 << 10

// ErrNoBackup: the folder is no backup.
var ErrNoBackup = errors.New("not a backup of Tidings")

// ErrDamaged: a backup is damaged, or was changed.
var ErrDamaged = errors.New("the backup is damaged")

// A Header describes a backup.
type Header struct {
	Format  int       `json:"format"`
	Created time.Time `json:"created"` // when the copy began
	Program string    `json:"program,omitempty"`
	Keys    bool      `json:"keys"` // whether it has the signing keys
}

// An entry is a file of a backup.
type entry struct {
	Path     string `json:"path"` // with slashes
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
	SHA256   string `json:"sha256"`
}

// totals is the last line of the list.
type totals struct {
	Files  int64  `json:"files"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"listSha256"` // of all lines before
}

// listWriter writes a list.
type listWriter struct {
	file *os.File
	out  *bufio.Writer
	sum  hash.Hash
	totals
}

func createList(dir string, h Header) (*listWriter, error) {
	file, err := os.OpenFile(filepath.Join(dir, listName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	l := &listWriter{file: file, sum: sha256.New()}
	l.out = bufio.NewWriter(io.MultiWriter(file, l.sum))
	h.Format = format
	return l, l.line(h)
}

func (l *listWriter) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(text, '\n'))
	return err
}

func (l *listWriter) add(e entry) error {
	l.Files++
	l.Bytes += e.Size
	return l.line(e)
}

// finish writes the totals and syncs the list.
func (l *listWriter) finish() error {
	if err := l.out.Flush(); err != nil {
		return err
	}
	l.SHA256 = hex.EncodeToString(l.sum.Sum(nil))
	if err := l.line(l.totals); err != nil {
		return err
	}
	return errors.Join(l.out.Flush(), l.file.Sync())
}

// list reads a list, one entry at a time.
type list struct {
	Header
	path string
	file *os.File
	in   *bufio.Reader
	sum  hash.Hash
	read totals // of the entries that were read
	next entry  // of find
	done bool   // find has read all entries
}

// openList opens the list of a backup. The error is ErrNoBackup if there is none.
func openList(dir string) (*list, error) {
	l := &list{path: filepath.Join(dir, listName), sum: sha256.New()}
	var err error
	l.file, err = os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is %w: it has no %s", dir, ErrNoBackup, listName)
	}
	if err != nil {
		return nil, err
	}
	l.in = bufio.NewReaderSize(l.file, maxLine)
	line, err := l.line()
	if err == nil {
		err = json.Unmarshal(line, &l.Header)
	}
	if err == nil && l.Format != format {
		err = fmt.Errorf("%s has format %d, this program reads format %d", l.path, l.Format, format)
	} else if err != nil {
		err = l.damaged(err.Error())
	}
	if err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	l.sum.Write(line)
	return l, nil
}

func (l *list) damaged(reason string) error {
	return fmt.Errorf("%w: %s: %s", ErrDamaged, l.path, reason)
}

// line returns the next line with its end.
func (l *list) line() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	if err == io.EOF {
		return nil, errors.New("it is truncated")
	}
	return line, err
}

// entry returns the next entry, or io.EOF after the last one, if the list is complete.
func (l *list) entry() (e entry, err error) {
	line, err := l.line()
	if err != nil {
		return e, l.damaged(err.Error())
	}
	var t totals
	if err := json.Unmarshal(line, &t); err != nil {
		return e, l.damaged(err.Error())
	}
	if t.SHA256 != "" {
		l.read.SHA256 = hex.EncodeToString(l.sum.Sum(nil))
		if _, err := l.in.Peek(1); t != l.read || err != io.EOF {
			return e, l.damaged("it was changed")
		}
		return e, io.EOF
	}
	l.sum.Write(line)
	if err := json.Unmarshal(line, &e); err != nil {
		return e, l.damaged(err.Error())
	}
	if !filepath.IsLocal(filepath.FromSlash(e.Path)) || e.Path == listName || e.Size < 0 {
		return e, l.damaged(fmt.Sprintf("%q is no path of a file in it", e.Path))
	}
	l.read.Files++
	l.read.Bytes += e.Size
	return e, nil
}

// find returns the entry of a path. The paths of successive calls must be in the order of
// filepath.WalkDir.
func (l *list) find(path string) (e entry, ok bool) {
	for !l.done {
		if l.next.Path != "" {
			switch order := compare(l.next.Path, path); {
			case order == 0:
				return l.next, true
			case order > 0:
				return entry{}, false
			}
		}
		var err error
		l.next, err = l.entry()
		l.done = err != nil
	}
	return entry{}, false
}

func (l *list) Close() error { return l.file.Close() }

// compare orders paths as filepath.WalkDir does.
func compare(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }

// Total returns the header of a backup and the size of its files in bytes. It reads the
// whole list, whose error is ErrNoBackup or ErrDamaged.
func Total(dir string) (Header, int64, error) {
	l, err := openList(dir)
	if err != nil {
		return Header{}, 0, err
	}
	defer l.Close()
	for {
		if _, err := l.entry(); err == io.EOF {
			return l.Header, l.read.Bytes, nil
		} else if err != nil {
			return Header{}, 0, err
		}
	}
}
