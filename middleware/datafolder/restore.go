package datafolder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo/repair"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/backup"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// restoringFolder is the folder in the data folder into which a backup is copied and in
// which it is checked. While it exists, no process can use the data folder (see Lock), so
// the parts can be moved to their places one by one. The same restore can be repeated.
const restoringFolder = "restore.tmp"

// A RestoreConfig configures Restore.
type RestoreConfig struct {
	Options  *config.Options         // whose data folder is restored
	Dir      string                  // the backup
	Progress func(done, total int64) // bytes
	Verified repair.Read             // what was read of the account's repo, after the bytes; may be nil
	Problem  func(repair.Problem)    // called with each problem of the account's repo; required
	Logger   *slog.Logger
}

// Restored is the result of Restore.
type Restored struct {
	backup.Header
	backup.Result
	Repo   *repair.Report // of the account; nil: the backup has none
	ByRoot bool           // the files belong to root
}

// ErrNotEmpty: the data folder to be restored has contents.
var ErrNotEmpty = errors.New("not empty")

// Restore checks a backup and copies it to a data folder, which must be empty but for keys.
// After an error the folder is as before or, after a failure of the disk, is refused by
// Lock until a restore succeeds. If root restores, the files belong to the owner of the
// data folder.
func Restore(ctx context.Context, cfg RestoreConfig) (Restored, error) {
	o := cfg.Options
	owner, err := ownerOf(o.Data)
	if err != nil {
		return Restored{}, err
	}
	unlock, err := lockFolder(o.LockFile())
	if err != nil {
		return Restored{}, err
	}
	r := &restoration{RestoreConfig: cfg, owner: owner, staging: filepath.Join(o.Data, restoringFolder)}
	restored, err := r.run(ctx)
	restored.ByRoot = owner.isRoot()
	return restored, errors.Join(err, unlock())
}

type restoration struct {
	RestoreConfig
	owner   owner
	staging string
}

func (r *restoration) run(ctx context.Context) (done Restored, err error) {
	if err := r.owner.take(r.Options.LockFile()); err != nil {
		return done, err
	}
	if err := r.clear(); err != nil {
		return done, err
	}
	if done.Header, done.Result, err = backup.Restore(ctx, r.Dir, r.staging, r.Progress); err != nil {
		return done, err
	}
	err = r.check(ctx, &done)
	if err == nil {
		err = r.checkKeys()
	}
	if err == nil {
		err = private.ChownAllLike(r.staging, r.owner.like)
	}
	if err != nil {
		return done, errors.Join(err, os.RemoveAll(r.staging))
	}
	return done, r.place()
}

// clear removes what an interrupted restore has left, and makes sure that there is
// nothing else.
func (r *restoration) clear() error {
	o := r.Options
	if _, err := os.Lstat(r.staging); err == nil {
		for _, part := range Parts(o) {
			if err := os.RemoveAll(part); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(r.staging); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(o.Data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == filepath.Base(o.LockFile()), name == "lost+found":
		case !e.IsDir() && (strings.HasPrefix(name, config.HoldKey) || strings.HasPrefix(name, config.RemoteKey)):
		default:
			return fmt.Errorf("the data folder %s is %w, it has %s: move its contents away first", o.Data, ErrNotEmpty, name)
		}
	}
	return nil
}

// check opens the copied stores and verifies the account's repo.
func (r *restoration) check(ctx context.Context, done *Restored) error {
	at := func(path string) string { return filepath.Join(r.staging, filepath.Base(path)) }
	o := r.Options
	if exists(at(o.StateDir())) {
		db, err := state.Open(state.Config{Dir: at(o.StateDir()), ReadOnly: true, Logger: r.Logger})
		if err != nil {
			return err
		}
		if err := errors.Join(db.Damage(), db.Close()); err != nil {
			return fmt.Errorf("the state of the backup: %w", err)
		}
	}
	if exists(at(o.JournalDir())) {
		j, err := journal.Open(journal.Config{Dir: at(o.JournalDir()), Limit: int64(o.Journal.Limit), Logger: r.Logger})
		if err != nil {
			return err
		}
		if err := j.Close(); err != nil {
			return err
		}
	}
	if o.Hold == nil || !exists(at(o.HoldDir())) {
		return nil
	}
	return r.verifyRepo(ctx, at(o.HoldDir()), done)
}

func (r *restoration) verifyRepo(ctx context.Context, dir string, done *Restored) error {
	o := r.Options
	key := filepath.Join(r.staging, config.HoldKey)
	if !exists(key) {
		key = o.KeyFile()
	}
	if !exists(key) {
		return fmt.Errorf("the backup has no key, and %s does not exist: put the account's key there first", key)
	}
	cfg, old, err := hold.Offline(hold.RepoConfig{Dir: dir, KeyFile: key, Hostname: o.Hold.Hostname, Reserve: 1, Logger: r.Logger})
	if err != nil {
		return err
	}
	report, err := repair.Verify(ctx, cfg, old, r.Problem, r.Verified)
	if err != nil {
		return err
	}
	done.Repo = &report
	if report.Problems > 0 {
		return fmt.Errorf("the account's repo in the backup is damaged, %d problems: nothing was restored", report.Problems)
	}
	return nil
}

// checkKeys makes sure that no key is replaced by another one.
func (r *restoration) checkKeys() error {
	return r.eachKey(func(from, to string) error {
		have, err := private.ReadFile(to)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		key, err := private.ReadFile(from)
		if err == nil && !bytes.Equal(key, have) {
			err = fmt.Errorf("%s is another key than that of the backup: move it away first", to)
		}
		return err
	})
}

// eachKey calls visit with the path of each copied key and its place.
func (r *restoration) eachKey(visit func(from, to string) error) error {
	for name, place := range map[string]string{config.HoldKey: r.Options.KeyFile(), config.RemoteKey: r.Options.RemoteKeyFile()} {
		files, err := identity.KeyFiles(filepath.Join(r.staging, name))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := visit(file, place+strings.TrimPrefix(filepath.Base(file), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// place moves the parts to their places.
func (r *restoration) place() error {
	err := r.eachKey(func(from, to string) error {
		key, err := private.ReadFile(from)
		if err == nil {
			err = private.CreateFile(to, key)
		}
		if err == nil {
			err = private.ChownLike(to, r.owner.like)
		}
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("restore the key: %w", err)
	}
	for _, part := range Parts(r.Options) {
		err := os.Rename(filepath.Join(r.staging, filepath.Base(part)), part)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := private.SyncDir(r.Options.Data); err != nil {
		return err
	}
	if err := os.RemoveAll(r.staging); err != nil {
		return err
	}
	return private.SyncDir(r.Options.Data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
