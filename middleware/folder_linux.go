package middleware

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// folderName identifies a data folder by the inode and the birth time of its lock
// file. A copy of the folder has another name, even if it replaced the original.
// Empty: the file system does not record birth times.
func folderName(lockFile string) string {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, lockFile, 0, unix.STATX_INO|unix.STATX_BTIME, &stat)
	if err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprintf("%d at %d.%09d", stat.Ino, stat.Btime.Sec, stat.Btime.Nsec)
}
