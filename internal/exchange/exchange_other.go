//go:build !linux

// Package exchange swaps two files or folders.
package exchange

import "errors"

// Paths is not supported.
func Paths(string, string) error { return errors.ErrUnsupported }
