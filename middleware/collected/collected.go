// Package collected keeps notes of the manifests that garbage-collect deletes,
// since it works on storage alone and the registry does not hear of that.
//
// Each run of garbage-collect that deletes manifests has a file of its own in one
// folder, and writes a line to it before it deletes a manifest. The registry
// takes the files when it starts. After a crash of either, a note may be there
// of a manifest that was not deleted, and a note may be taken twice: whoever
// takes it asks storage first.
package collected

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Note names a manifest that is deleted.
type Note struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
}

const suffix = ".jsonl"

// A Run writes the notes of one run of garbage-collect. It holds a lock on its
// file until Close, so that the registry leaves the file alone.
type Run struct {
	file  *os.File
	path  string
	notes int
}

// Begin makes the file of a run in dir, whose parent must be there. Folder and
// file belong to the owner of the parent, which need not be the user who runs
// garbage-collect.
func Begin(dir string) (*Run, error) {
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := giveTo(dir, parent); err != nil {
			return nil, err
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	name := time.Now().UTC().Format("20060102T150405.000000000") + fmt.Sprint("-", os.Getpid()) + suffix
	r := &Run{path: filepath.Join(dir, name)}
	// The file gets its name only when it is locked: Take removes any other.
	begun := r.path + ".tmp"
	if r.file, err = os.OpenFile(begun, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	err = errors.Join(
		giveTo(begun, parent),
		unix.Flock(int(r.file.Fd()), unix.LOCK_EX|unix.LOCK_NB),
	)
	if err == nil {
		err = os.Rename(begun, r.path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

// giveTo lets root make a file for the user that owns another.
func giveTo(path string, like fs.FileInfo) error {
	stat, ok := like.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || !ok {
		return nil
	}
	return os.Lchown(path, int(stat.Uid), int(stat.Gid))
}

// Add returns when the note is durable.
func (r *Run) Add(n Note) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		return err
	}
	r.notes++
	return r.file.Sync()
}

// Close lets the registry take the notes.
func (r *Run) Close() error {
	if r.notes == 0 {
		return errors.Join(os.Remove(r.path), r.file.Close())
	}
	return r.file.Close()
}

// Taken says what Take found.
type Taken struct {
	Notes   int
	Bad     int // lines that are no notes; the last one of a run that was killed may be
	Running int // files that a run still writes; the next Take has them
}

// Take gives the notes of each finished run in dir to take, and removes the
// run's file when that returns nil. After an error the file stays, and its notes
// are given again by the next Take.
func Take(dir string, take func([]Note) error) (Taken, error) {
	var all Taken
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), suffix) {
			continue
		}
		if err := takeFile(filepath.Join(dir, entry.Name()), take, &all); err != nil {
			return all, err
		}
	}
	return all, nil
}

func takeFile(path string, take func([]Note) error, all *Taken) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		all.Running++
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var notes []Note
	for line := range bytes.Lines(content) {
		var n Note
		if err := json.Unmarshal(line, &n); err != nil || n.Repository == "" || n.Digest == "" {
			all.Bad++
			continue
		}
		notes = append(notes, n)
	}
	if err := take(notes); err != nil {
		return fmt.Errorf("notes in %s: %w", path, err)
	}
	all.Notes += len(notes)
	return os.Remove(path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
