package middleware

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// folderName names a data folder by its lock file's inode and birth: a copy of
// the folder, also one that was put in its place, has another name. Empty: the
// file system does not tell.
func folderName(lockFile string) string {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, lockFile, 0, unix.STATX_INO|unix.STATX_BTIME, &stat)
	if err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprintf("%d at %d.%09d", stat.Ino, stat.Btime.Sec, stat.Btime.Nsec)
}
