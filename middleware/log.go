package middleware

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/distribution/distribution/v3/configuration"
)

// newLog returns a log with the level and the format of the registry's `log:`
// section.
func newLog(w io.Writer, log configuration.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: level(log.Level)}
	if log.Formatter == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func level(l configuration.Loglevel) slog.Level {
	switch l {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// redisLog receives the messages of go-redis, most of them about failed
// connections. Callers report errors as well, so these are for debugging.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
