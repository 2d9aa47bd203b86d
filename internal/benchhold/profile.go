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

// profileName returns the file name of a row's profile.
func (r row) profileName() string {
	return strings.NewReplacer(",", "", " ", "-").Replace(r.name) + ".pprof"
}

// profile starts a CPU profile of the server for the duration of a turn, at least a
// second. Finish waits for it.
func (t *target) profile(ctx context.Context, turn time.Duration, file string) (finish func() error) {
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
