package middleware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/backup"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// Backups of the data folder
//
// A backup is made in two steps. First the parts are collected in the folder backup.tmp
// of the data folder: files that are never changed are linked, so that this takes little
// time and space, and others are copied. Then backup.Write links or copies that folder
// to its place, while everything goes on.
//
// The parts are collected in this order: the journal's cursors, the state, the account's
// repo and its blobs, and the journal's events (see journal.Copy). So in the copy
//
//   - the journal has all events that the state has not processed, and no cursor is ahead
//     of the state: events are processed again, with the same record keys, as after a crash;
//   - the repo may have records and posts that the state does not know as written. At the
//     first start, which finds another data folder, the ledger and the post history are
//     rebuilt from the repo anyway, see notifier/stores.go.
//
// The notes of garbage-collect are copied first: they may be in the journal as well, which
// is harmless, but are never in neither.

// stagingFolder is the folder in the data folder in which a backup is collected. If a crash
// leaves it, the next start or the next backup removes it.
const stagingFolder = "backup.tmp"

// backups writes backups of a running process, one at a time.
type backups struct {
	r       *runtime
	running sync.Mutex
	ctx     context.Context // ends with the process
}

// openBackups returns the function of the admin API.
func (r *runtime) openBackups() admin.Backup {
	ctx, cancel := context.WithCancel(context.Background())
	b := &backups{r: r, ctx: ctx}
	r.onClose(func() error {
		cancel()
		b.running.Lock() // waits for the one that is being written
		return nil
	})
	return b.write
}

func (b *backups) write(ctx context.Context, q admin.BackupRequest, progress func(done, total int64)) (backup.Result, error) {
	if !b.running.TryLock() {
		return backup.Result{}, admin.ErrBackupRunning
	}
	defer b.running.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	return writeBackup(ctx, b.r.options, q, progress, func(dir string) error { return b.r.stage(ctx, dir) })
}

// Backup writes a backup of a data folder that no process uses.
func Backup(ctx context.Context, host *configuration.Configuration, q admin.BackupRequest, progress func(done, total int64)) (backup.Result, error) {
	options, _, err := config.FromRegistry(host)
	if err != nil {
		return backup.Result{}, err
	}
	unlock, err := datafolder.Lock(options.LockFile())
	if err != nil {
		return backup.Result{}, err
	}
	result, err := writeBackup(ctx, options, q, progress, func(dir string) error {
		for _, part := range datafolder.Parts(options) {
			if err := stageStopped(ctx, part, filepath.Join(dir, filepath.Base(part))); err != nil {
				return err
			}
		}
		return nil
	})
	return result, errors.Join(err, unlock())
}

// writeBackup writes a backup of what stage collects in a folder.
func writeBackup(ctx context.Context, o *config.Options, q admin.BackupRequest, progress func(done, total int64), stage func(dir string) error) (result backup.Result, err error) {
	target, err := backup.Target(q.Dir, o.Data)
	if err != nil {
		return result, err
	}
	staging := filepath.Join(o.Data, stagingFolder)
	if err := os.RemoveAll(staging); err != nil {
		return result, err
	}
	if err := os.Mkdir(staging, 0o700); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	header := backup.Header{Created: clock.Now().UTC(), Program: ownVersion(), Keys: !q.NoKey}
	if err := stage(staging); err != nil {
		return result, err
	}
	if !q.NoKey {
		if err := stageKeys(ctx, o, staging); err != nil {
			return result, err
		}
	}
	return backup.Write(ctx, backup.Config{From: staging, Dir: target, Header: header, Progress: progress})
}

// stage collects the parts of a running process.
func (r *runtime) stage(ctx context.Context, dir string) error {
	to := func(path string) string { return filepath.Join(dir, filepath.Base(path)) }
	o := r.options
	copied := r.copied
	if copied == nil {
		copied = func(string) {}
	}
	if err := stageStopped(ctx, o.CollectedDir(), to(o.CollectedDir())); err != nil {
		return err
	}
	copied("notes")
	if r.journal == nil { // the account is served alone
		for _, part := range []string{o.JournalDir(), o.StateDir()} {
			if err := stageStopped(ctx, part, to(part)); err != nil {
				return err
			}
		}
		return r.stageRepo(ctx, to(o.HoldDir()))
	}
	err := r.journal.Copy(to(o.JournalDir()), func() error {
		if err := r.state.Checkpoint(to(o.StateDir())); err != nil {
			return fmt.Errorf("copy state: %w", err)
		}
		copied("state")
		err := r.stageRepo(ctx, to(o.HoldDir()))
		copied("repo")
		return err
	})
	copied("journal")
	return err
}

// stageRepo copies the repo, if there is one. An account that cannot be opened is an error,
// so that its backup does not replace a good one.
func (r *runtime) stageRepo(ctx context.Context, dir string) error {
	if r.options.Hold == nil {
		return stageStopped(ctx, r.options.HoldDir(), dir) // of an earlier configuration
	}
	open := r.openedHold()
	if open == nil {
		return fmt.Errorf("the account cannot be opened, so it is not backed up: %w", r.broken.Reason())
	}
	return open.repo.Copy(ctx, dir)
}

// stageStopped links or copies the files of a folder that no process has open. A folder
// that does not exist is skipped, and so is a file that was just removed.
func stageStopped(ctx context.Context, from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.Mkdir(target, 0o700)
		case !d.Type().IsRegular() || temporaryFile(d.Name()):
			return nil
		case unchanging(filepath.Base(from), rel):
			err = backup.LinkOrCopy(ctx, path, target)
		default:
			err = backup.Copy(ctx, path, target)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// temporaryFile reports whether a file of the stores is not part of them.
func temporaryFile(name string) bool {
	return name == "LOCK" || strings.HasSuffix(name, ".tmp") || strings.HasPrefix(name, "new-")
}

// unchanging reports whether a file of the state or the repo is never changed: a table of
// the database, or a blob.
func unchanging(part, path string) bool {
	inBlobs := filepath.Dir(path) == "blobs"
	return slices.Contains([]string{"state", "hold"}, part) && (filepath.Ext(path) == ".sst" || inBlobs)
}

// stageKeys copies the signing keys that exist, with the previous ones of the account.
func stageKeys(ctx context.Context, o *config.Options, dir string) error {
	for name, path := range map[string]string{config.HoldKey: o.KeyFile(), config.RemoteKey: o.RemoteKeyFile()} {
		files, err := identity.KeyFiles(path)
		if err != nil {
			return fmt.Errorf("copy the key: %w", err)
		}
		for _, file := range files {
			if err := backup.Copy(ctx, file, filepath.Join(dir, name+strings.TrimPrefix(filepath.Base(file), filepath.Base(path)))); err != nil {
				return fmt.Errorf("copy the key: %w", err)
			}
		}
	}
	return nil
}
