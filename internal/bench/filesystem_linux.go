package main

import "golang.org/x/sys/unix"

// filesystem reports whether dir is in memory, where an fsync has no effect.
func filesystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return "in memory"
	}
	return "on disk"
}
