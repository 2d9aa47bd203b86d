//go:build !linux

package repair

import "errors"

// exchange is not supported.
func exchange(string, string) error { return errors.ErrUnsupported }
