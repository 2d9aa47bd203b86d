// Package exchange swaps two files or folders.
package exchange

import "golang.org/x/sys/unix"

// Paths swaps two paths in one step. The error is errors.ErrUnsupported on systems
// other than Linux, and one of the file system where that cannot do it.
func Paths(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
