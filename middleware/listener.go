package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// listener serves the mounts at their own address, http.addr, over plain HTTP. It is
// meant to be behind a proxy or a firewall.
type listener struct {
	server *http.Server
	addr   net.Addr
	done   chan struct{}
}

func listen(addr string, handler http.Handler, log *slog.Logger) (*listener, error) {
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen at http.addr %q: %w", addr, err)
	}
	l := &listener{
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		addr: socket.Addr(),
		done: make(chan struct{}),
	}
	go func() {
		defer close(l.done)
		if err := l.server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			log.Error("listener of http.addr failed", "addr", addr, "error", err)
		}
	}()
	return l, nil
}

// close waits until running requests end or, if ctx ends first, closes their
// connections.
func (l *listener) close(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	<-l.done
	return err
}
