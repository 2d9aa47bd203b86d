package private

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ChownLike changes the owner and group of a file to those of another, if the user is
// root. Symbolic links are not followed.
func ChownLike(path string, like fs.FileInfo) error {
	stat, ok := like.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || !ok {
		return nil
	}
	return os.Lchown(path, int(stat.Uid), int(stat.Gid))
}

// ChownAllLike is ChownLike for a folder and everything in it.
func ChownAllLike(dir string, like fs.FileInfo) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return ChownLike(path, like)
	})
}
