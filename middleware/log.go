package middleware

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/distribution/distribution/v3/configuration"
)

// newLog is a log that looks like the registry's: as much of it and in the
// form that its `log:` section asks for.
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

// redisLog takes go-redis' own words, most of them about connections that
// failed. Its callers report errors too, so these are for who looks closely.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
