package main

import (
	"strings"
	"testing"
)

// A run in a folder that is not the root of the repository ends with an error.
func TestStartElsewhere(t *testing.T) {
	t.Parallel()
	if s, err := start(t.Context(), t.TempDir(), t.TempDir()); s != nil || err == nil || !strings.Contains(err.Error(), "install the reference PDS") {
		t.Errorf("got %v, %v", s, err)
	}
}
