package datafolder

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ID identifies a file or folder by its inode and birth time. A copy has another
// ID, even if it has replaced the original. It is empty if the file system does not
// record birth times.
func ID(path string) string {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &stat)
	if err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprintf("%d at %d.%09d", stat.Ino, stat.Btime.Sec, stat.Btime.Nsec)
}
