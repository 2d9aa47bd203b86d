// Package collected keeps notes of the manifests that garbage-collect deletes. It
// deletes them from storage directly, so the registry has no events of these deletes.
//
// Each run of garbage-collect that deletes manifests has its own file in one folder,
// and writes a line to it before it deletes a manifest. The registry takes the files
// when it starts. After a crash of either process there may be a note of a manifest
// that was not deleted, and a note may be taken twice, so the caller of Take must ask
// storage whether the manifest still exists.
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidings-dev/tidings/internal/private"
)

// A Note identifies a deleted manifest.
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

// Begin creates the file of a run in dir, whose parent must exist. If root runs
// garbage-collect, the owner of the parent becomes that of the folder and the file.
func Begin(dir string) (*Run, error) {
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := private.ChownLike(dir, parent); err != nil {
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
	// The file gets its final name only once it is locked, since Take removes files
	// that are not locked.
	temporary := r.path + ".tmp"
	if r.file, err = os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	err = errors.Join(
		private.ChownLike(temporary, parent),
		unix.Flock(int(r.file.Fd()), unix.LOCK_EX|unix.LOCK_NB),
	)
	if err == nil {
		err = os.Rename(temporary, r.path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

// Add writes a note; it is durable when Add returns.
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

// Close releases the lock, so that the registry can take the notes. A file without
// notes is removed.
func (r *Run) Close() error {
	if r.notes == 0 {
		return errors.Join(os.Remove(r.path), r.file.Close())
	}
	return r.file.Close()
}

// Taken counts what Take found.
type Taken struct {
	Notes   int
	Bad     int // invalid lines; the last line of a run that was killed may be incomplete
	Running int // files that a run still writes; left for the next Take
}

// Take passes the notes of each finished run in dir to take, and removes the run's file
// if take returns nil. After an error the file stays for the next Take.
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
