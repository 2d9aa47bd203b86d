package datafolder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidings-dev/tidings/internal/private"
)

// owner is the user to whom restored files belong if root restores them: the owner of the
// data folder or, if restore creates it, of the folder that it is in. Other users own what
// they create.
type owner struct {
	like    fs.FileInfo
	created []string // folders that did not exist
}

// ownerOf must be called before the data folder is created.
func ownerOf(data string) (o owner, err error) {
	for {
		o.like, err = os.Stat(data)
		if !errors.Is(err, fs.ErrNotExist) {
			return o, err
		}
		o.created = append(o.created, data)
		data = filepath.Dir(data)
	}
}

// isRoot reports whether the restored files belong to root.
func (o owner) isRoot() bool {
	stat, ok := o.like.Sys().(*syscall.Stat_t)
	return os.Geteuid() == 0 && ok && stat.Uid == 0
}

// take gives the owner the folders that were created, and the lock file.
func (o owner) take(lock string) error {
	for _, path := range append(o.created, lock) {
		if err := private.ChownLike(path, o.like); err != nil {
			return err
		}
	}
	return nil
}
