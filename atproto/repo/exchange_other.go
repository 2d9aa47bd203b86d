//go:build !linux

package repo

import "errors"

// exchange swaps two paths in one step, where the system can.
func exchange(string, string) error { return errors.ErrUnsupported }
