package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// SocketName is the name of the socket in the data folder.
const SocketName = "admin.sock"

// maxConnections limits the open connections to the socket.
const maxConnections = 32

// A Server serves the admin API of a data folder.
type Server struct {
	server *http.Server
	path   string
	socket fs.FileInfo
	done   chan struct{}
}

// Listen serves handler on the socket of a data folder, which has mode 0600. It replaces the
// socket that a killed process has left, so the caller must hold the lock of the folder.
func Listen(dir string, handler http.Handler, log *slog.Logger) (*Server, error) {
	s := &Server{path: filepath.Join(dir, SocketName), done: make(chan struct{})}
	listener, err := s.listen(dir)
	if err != nil {
		return nil, fmt.Errorf("listen at the admin socket %s: %w", s.path, err)
	}
	s.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(&limited{listener, make(chan struct{}, maxConnections)}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin socket failed", "path", s.path, "error", err)
		}
	}()
	return s, nil
}

func (s *Server) listen(dir string) (net.Listener, error) {
	if err := removeSocket(s.path); err != nil {
		return nil, err
	}
	addr, release, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// On Linux the socket has this mode from the beginning, elsewhere after Chmod.
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := private.Listen(context.Background(), "unix", addr)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // Close removes it, by its own path
	err = os.Chmod(s.path, 0o600)
	if err == nil {
		s.socket, err = os.Lstat(s.path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(s.path))
	}
	return l, nil
}

// removeSocket removes a socket, if there is one. Any other file stays, and is an error.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		err = errors.New("there is a file with this name that is no socket; remove it")
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// Close waits until running requests end or, if ctx ends first, closes their connections.
// It removes the socket, unless another Server has replaced it.
func (s *Server) Close(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	<-s.done
	if info, failed := os.Lstat(s.path); failed == nil && os.SameFile(info, s.socket) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// maxAddress is the longest path of a socket that all systems accept, in bytes.
const maxAddress = 103

// address returns the path by which the socket of a folder is bound or dialed. A path that
// is too long is shortened with a descriptor of the folder, which release closes.
func address(dir string) (addr string, release func(), err error) {
	path := filepath.Join(dir, SocketName)
	if len(path) <= maxAddress {
		return path, func() {}, nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	addr = fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	if _, err := os.Stat(addr); err != nil {
		folder.Close()
		return "", nil, fmt.Errorf("the path has %d bytes, and this system supports %d; use a shorter data folder", len(path), maxAddress)
	}
	return filepath.Join(addr, SocketName), func() { folder.Close() }, nil
}

// limited accepts a connection when fewer than cap(slots) are open.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

// A limitedConn releases its slot once, when it is closed.
type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
