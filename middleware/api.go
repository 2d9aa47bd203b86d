package middleware

import (
	"context"
	"errors"
	"io/fs"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/stats"
)

func (r *runtime) openAPI() error {
	switch err := r.options.API.CheckToken(); {
	case errors.Is(err, fs.ErrNotExist): // it may be created later
		r.log.Warn("the token file is missing; until it exists, the API refuses requests with a token", "error", err)
	case err != nil:
		return err
	}
	cfg := stats.Config{
		Source:    r.counts(),
		Pushes:    r.pushes,
		Health:    r.health,
		Visible:   r.notifier.Public,
		TokenFile: r.options.API.TokenFile,
		Now:       clock.Now,
		Logger:    r.log,
	}
	if r.redis != nil {
		cfg.Fallback = r.counter
	}
	r.mounts = append(r.mounts, mount{stats.Prefix, stats.New(cfg)})
	r.mounts = append(r.mounts, probes(func() bool { return !r.journalDiskFull() })...)
	return nil
}

func (r *runtime) pushes(_ context.Context, limit int, all bool) ([]stats.Push, error) {
	return r.notifier.Pushes(limit, all)
}
