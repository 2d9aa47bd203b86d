package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
)

// A state is the content of journal.json: the identity of the journal, the
// cursors, and for each stream the last event known to be durable.
//
// The file is replaced as a whole: written to journal.json.tmp, fsynced, renamed,
// and the directory fsynced. A crash leaves the old or the new file. A cursor on
// disk is thus never ahead of its reader, but may be behind it, so that events
// are read again. SetCursorLazily keeps cursors in memory until the next write,
// at the latest before a segment is deleted. In memory a state is immutable.
// Last and the cursors detect at Open that the segments are older than the file.
type state struct {
	Format  int                          `json:"format"`
	ID      string                       `json:"id"`
	ClockID uint                         `json:"clockId"`
	Salt    string                       `json:"salt"`
	Order   uint64                       `json:"mark"`
	Last    map[string]uint64            `json:"last"` // last event known to be durable, by stream
	Cursors map[string]map[string]uint64 `json:"cursors"`
	// Jumped has, by stream, the last number that was skipped when ID was taken,
	// so that it is not used again even if nothing has been appended since.
	Jumped map[string]uint64 `json:"jumped,omitempty"`
}

const stateName = "journal.json"

func newState() *state {
	return &state{
		Format: format, ID: random(), ClockID: uint(number(random()) & 1023), Salt: random(),
		Last: map[string]uint64{}, Cursors: map[string]map[string]uint64{},
	}
}

// random returns 16 hexadecimal characters; number parses them.
func random() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func number(hexadecimal string) uint64 {
	n, _ := strconv.ParseUint(hexadecimal, 16, 64)
	return n
}

func (st *state) clone() *state {
	c := *st
	c.Last, c.Jumped = maps.Clone(st.Last), maps.Clone(st.Jumped)
	c.Cursors = map[string]map[string]uint64{}
	for s, cursors := range st.Cursors {
		c.Cursors[s] = maps.Clone(cursors)
	}
	return &c
}

func (st *state) set(s Stream, name string, seq uint64) {
	if st.Cursors[s.String()] == nil {
		st.Cursors[s.String()] = map[string]uint64{}
	}
	st.Cursors[s.String()][name] = seq
}

// encode returns JSON followed by a line with its checksum: a damaged number
// would otherwise skip events silently.
func (st *state) encode() ([]byte, error) {
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text, "\ncrc32c %08x\n", crc32.Checksum(text, castagnoli)), nil
}

func decodeState(path string, raw []byte) (*state, error) {
	text, sum, _ := bytes.Cut(raw, []byte("\ncrc32c "))
	if string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(text, castagnoli)) {
		return nil, &CorruptError{File: path, Reason: "its checksum is wrong",
			Fix: "restore the file from a backup, or move the whole folder away to start with an empty journal"}
	}
	st := newState()
	if err := json.Unmarshal(text, st); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if err := checkFormat(path, st.Format); err != nil {
		return nil, err
	}
	return st, nil
}

// loadState reads journal.json; nil: there is no file.
func (j *Journal) loadState() (*state, error) {
	path := filepath.Join(j.cfg.Dir, stateName)
	f, err := j.fs.OpenFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, 0); err != nil && size > 0 {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return decodeState(path, raw)
}

// update changes the state on disk, then in memory. After an error the state in
// memory is unchanged, and that on disk is the old or the new one.
func (j *Journal) update(change func(*state)) error {
	j.stateMu.Lock()
	defer j.stateMu.Unlock()
	next := j.nextState(change)
	if err := j.saveState(next); err != nil {
		return fmt.Errorf("write %s: %w", stateName, diskError(err))
	}
	j.state.Store(next)
	return nil
}

// nextState returns a changed copy of the state, with all that is known by now. The caller
// must hold stateMu.
func (j *Journal) nextState(change func(*state)) *state {
	next := j.state.Load().clone()
	change(next)
	next.Order = j.LastOrder()
	for _, s := range j.streams {
		s.mu.Lock()
		next.Last[s.kind.String()] = s.durableLast
		for name, seq := range next.Cursors[s.kind.String()] {
			next.set(s.kind, name, max(seq, s.lazyCursors[name]))
		}
		s.mu.Unlock()
	}
	return next
}

func (j *Journal) saveState(st *state) error {
	raw, err := st.encode()
	if err != nil {
		return err
	}
	path := filepath.Join(j.cfg.Dir, stateName)
	f, err := j.fs.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(raw, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = j.fs.Rename(path+".tmp", path)
	}
	if err != nil {
		j.fs.Remove(path + ".tmp") // to free space on a full disk
		return err
	}
	return j.fs.SyncDir(j.cfg.Dir)
}
