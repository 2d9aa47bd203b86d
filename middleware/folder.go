package middleware

import (
	"os"
	"path/filepath"

	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/state"
)

func (r *runtime) openFolder() error {
	unlock, err := datafolder.Lock(r.options.LockFile())
	if err != nil {
		return err
	}
	r.onClose(unlock)
	_ = os.RemoveAll(filepath.Join(r.options.Data, stagingFolder)) // of a backup that a crash interrupted
	r.restrictFolder()
	r.instance, err = datafolder.Instance(r.options.LockFile())
	return err
}

// restrictFolder removes access of other users to the data folder, which earlier
// versions and restored backups may have left. For the folder itself that can fail,
// since another user may own it.
func (r *runtime) restrictFolder() {
	if info, err := os.Stat(r.options.Data); err == nil && info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(r.options.Data, info.Mode()&^0o077)
	}
	opened, err := private.Close(r.options.Private()...)
	if len(opened) > 0 {
		r.log.Info("access of other users to the data folder removed", "dir", r.options.Data, "files", len(opened), "first", opened[0])
	}
	if err != nil {
		r.log.Warn("other users may have access to the data folder", "dir", r.options.Data, "error", err)
	}
}

func (r *runtime) openState() error {
	db, err := state.Open(state.Config{Dir: r.options.StateDir(), Reserve: uint64(r.options.Reserve), Logger: r.log})
	if err != nil {
		return err
	}
	r.onClose(db.Close)
	r.state, r.dead = db, deadletters.New(state.OnPebble(db), db.Space)
	return nil
}

// dataFolderID identifies the data folder and the journal's folder in it. The second
// is needed because a journal that was restored alone can have lost events that no
// reader had read, which sequence numbers do not show.
func (r *runtime) dataFolderID() string {
	data, journal := datafolder.ID(r.options.LockFile()), datafolder.ID(r.options.JournalDir())
	if data == "" || journal == "" {
		return ""
	}
	return data + ", journal " + journal
}
