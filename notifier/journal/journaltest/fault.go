package journaltest

import (
	"io/fs"
	"strings"
)

// An Op is an operation on a disk.
type Op string

const (
	Open     Op = "open"
	Write    Op = "write"
	Sync     Op = "fsync"
	SyncDir  Op = "fsync directory"
	Rename   Op = "rename"
	Remove   Op = "remove"
	Truncate Op = "truncate"
)

// Outcome is the effect of an operation that returns an error.
type Outcome int

const (
	NotApplied Outcome = iota // nothing
	Half                      // half of a write; a Sync that lost the unsynced data
	Applied                   // all of it
)

func (o Outcome) String() string { return [...]string{"not applied", "half", "applied"}[o] }

// A Fault affects the next Times operations of kind Op on a file
// whose name contains Name.
type Fault struct {
	Op      Op
	Name    string
	Outcome Outcome
	Err     error         // nil: no error
	Hang    chan struct{} // if set, the operation waits until it is closed
	Skip    int           // matching operations that succeed first
	Times   int
}

// Inject adds a fault.
func (d *Disk) Inject(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, &f)
}

// Heal removes all faults.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

// Watch makes the disk call f, unless it is nil, before each operation. f may read
// and copy the disk.
func (d *Disk) Watch(f func(op Op, name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = f
}

// Count returns the number of operations of a kind, including failed ones.
func (d *Disk) Count(op Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// fault calls apply, unless a fault prevents it. half is true for the outcome Half.
func (d *Disk) fault(op Op, name string, apply func(half bool)) error {
	d.mu.Lock()
	if watch := d.watch; watch != nil {
		d.mu.Unlock()
		watch(op, name)
		d.mu.Lock()
	}
	d.counts[op]++
	f := d.match(op, name)
	if f != nil && f.Hang != nil {
		d.mu.Unlock()
		<-f.Hang
		d.mu.Lock()
	}
	defer d.mu.Unlock()
	if f == nil || f.Err == nil {
		if apply != nil {
			apply(false)
		}
		return nil
	}
	if f.Outcome != NotApplied && apply != nil {
		apply(f.Outcome == Half)
	}
	return &fs.PathError{Op: string(op), Path: name, Err: f.Err}
}

func (d *Disk) match(op Op, name string) *Fault {
	for _, f := range d.faults {
		if f.Op != op || f.Times == 0 || !strings.Contains(name, f.Name) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Times--
		return f
	}
	return nil
}
