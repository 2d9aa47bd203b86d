package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// file is where a row's profile goes.
func (r row) file() string {
	return strings.NewReplacer(",", "", " ", "-").Replace(r.name) + ".pprof"
}

// profile begins a CPU profile of the server, which lasts a turn at least;
// done waits for it.
func (t *target) profile(ctx context.Context, turn time.Duration, file string) (done func() error) {
	ended := make(chan error, 1)
	go func() {
		ended <- t.save(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", t.Debug, max(1, int(turn.Seconds()))), file)
	}()
	return func() error { return <-ended }
}

func (t *target) save(ctx context.Context, url, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %d %.200s %w", res.StatusCode, content, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o666)
}
