package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// A history prints what happens, with the time since its beginning.
type history struct {
	mu    sync.Mutex
	out   io.Writer
	begun time.Time
}

func newHistory(out io.Writer) *history { return &history{out: out, begun: time.Now()} }

func (h *history) add(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.out, "%9.3f  %s\n", time.Since(h.begun).Seconds(), fmt.Sprintf(format, args...))
}
