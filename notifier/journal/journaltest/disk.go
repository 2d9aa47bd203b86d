// Package journaltest has the conformance tests of a journal, and a simulated disk
// with faults, torn writes and power cuts.
package journaltest

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// A Disk is a file system in memory that tracks what survives a power cut: the
// synced content of files with synced names.
type Disk struct {
	mu     sync.Mutex
	names  map[string]*node // as processes see them
	synced map[string]*node // as of the last SyncDir
	faults []*Fault
	counts map[Op]int
	watch  func(Op, string)
}

type node struct {
	data   []byte // as processes see it
	synced []byte // as of the last Sync
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{names: map[string]*node{}, synced: map[string]*node{}, counts: map[Op]int{}}
}

// Kill returns a copy of the disk as the next process sees it after kill -9.
// Later writes of the old process do not affect it.
func (d *Disk) Kill() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	copies := map[*node]*node{}
	dup := func(names map[string]*node) map[string]*node {
		out := map[string]*node{}
		for name, n := range names {
			if copies[n] == nil {
				copies[n] = &node{data: bytes.Clone(n.data), synced: bytes.Clone(n.synced)}
			}
			out[name] = copies[n]
		}
		return out
	}
	return &Disk{names: dup(d.names), synced: dup(d.synced), counts: map[Op]int{}}
}

// block is the unit, in bytes, in which a power cut tears a file. Real blocks have
// 512 bytes or more; small ones test more positions.
const block = 32

// PowerCut returns the disk after a power cut: r decides for each block and each
// name that was not synced whether it survives. If r is nil, none does.
func (d *Disk) PowerCut(r *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := NewDisk()
	all := maps.Clone(d.names)
	maps.Copy(all, d.synced)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := d.synced[name]
		if r != nil && n != d.names[name] && r.IntN(2) == 0 {
			n = d.names[name]
		}
		if n == nil {
			continue
		}
		data := bytes.Clone(n.synced)
		if r != nil {
			data = tear(n, r)
		}
		kept := &node{data: data, synced: bytes.Clone(data)}
		after.names[name], after.synced[name] = kept, kept
	}
	return after
}

func tear(n *node, r *rand.Rand) []byte {
	size := len(n.data)
	if grown := size - len(n.synced); grown > 0 {
		size = len(n.synced) + r.IntN(grown+1)
	}
	out := make([]byte, size)
	copy(out, n.synced)
	for at := 0; at < size; at += block {
		if r.IntN(3) > 0 {
			end := min(at+block, size)
			copy(out[at:end], n.data[at:end])
		}
	}
	return out
}

// Files returns the names of all files in order.
func (d *Disk) Files() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names))
}

// Bytes returns the content of a file.
func (d *Disk) Bytes(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.names[name]; n != nil {
		return bytes.Clone(n.data)
	}
	return nil
}

// Put writes a file durably.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &node{data: bytes.Clone(data), synced: bytes.Clone(data)}
	d.names[name], d.synced[name] = n, n
}

// Durable returns how many bytes at the beginning of name a power cut leaves.
func (d *Disk) Durable(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.synced[name]
	if n == nil {
		return 0
	}
	same := 0
	for same < min(len(n.data), len(n.synced)) && n.data[same] == n.synced[same] {
		same++
	}
	return same
}

func (d *Disk) MkdirAll(string) error { return nil }

func (d *Disk) OpenFile(name string, flag int) (journal.File, error) {
	if err := d.fault(Open, name, nil); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		n = &node{}
		d.names[name] = n
	}
	if flag&os.O_TRUNC != 0 {
		n.data = nil
	}
	return &file{d: d, name: name, n: n}, nil
}

func (d *Disk) Rename(oldName, newName string) error {
	return d.fault(Rename, newName, func(bool) {
		d.names[newName] = d.names[oldName]
		delete(d.names, oldName)
	})
}

func (d *Disk) Remove(name string) error {
	return d.fault(Remove, name, func(bool) { delete(d.names, name) })
}

func (d *Disk) ReadDir(dir string) ([]string, error) {
	var names []string
	for _, name := range d.Files() {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (d *Disk) SyncDir(dir string) error {
	return d.fault(SyncDir, dir, func(bool) { d.synced = maps.Clone(d.names) })
}

type file struct {
	d    *Disk
	name string
	n    *node
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	n := 0
	err := f.d.fault(Write, f.name, func(half bool) {
		if half {
			p = p[:len(p)/2]
		}
		if grow := int(off) + len(p) - len(f.n.data); grow > 0 {
			f.n.data = append(f.n.data, make([]byte, grow)...)
		}
		n = copy(f.n.data[off:], p)
	})
	return n, err
}

func (f *file) Truncate(size int64) error {
	return f.d.fault(Truncate, f.name, func(bool) {
		if grow := int(size) - len(f.n.data); grow > 0 {
			f.n.data = append(f.n.data, make([]byte, grow)...)
		}
		f.n.data = bytes.Clone(f.n.data[:size])
	})
}

func (f *file) Sync() error {
	return f.d.fault(Sync, f.name, func(half bool) {
		if half {
			f.n.data = bytes.Clone(f.n.synced) // the page cache drops the pages that it could not write
			return
		}
		f.n.synced = bytes.Clone(f.n.data)
	})
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) Close() error { return nil }
