package middleware

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/redis/go-redis/v9"
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

// LogRedis lets go-redis log to log, for debugging: most of its messages are about failed
// connections, and callers report errors as well. Otherwise it writes them to stderr.
func LogRedis(log *slog.Logger) { redis.SetLogger(redisLog{log.With("component", "redis")}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
