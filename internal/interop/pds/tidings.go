package pds

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tidings-dev/tidings/atproto/identity"
)

// Build builds the tidings program into dir, as the Makefile does.
func Build(ctx context.Context, root, dir string) (program string, err error) {
	program = filepath.Join(dir, "tidings")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags=disable_grpc_modules", "-ldflags=-s -w", "-o", program, "./cmd/tidings")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build tidings: %w", err)
	}
	return program, nil
}

// StartTidings makes a hold in dir, which is new, and serves it. Its DID can be
// looked up nowhere.
func StartTidings(ctx context.Context, program, dir string) (*Server, error) {
	return startTidings(ctx, program, dir, Handle)
}

// StartLocal is StartTidings with a DID that this machine can look up.
func StartLocal(ctx context.Context, program, dir string) (*Server, error) {
	return startTidings(ctx, program, dir, "")
}

// startTidings serves a hold at hostname; "": at localhost with its port.
func startTidings(ctx context.Context, program, dir, hostname string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	port, err1 := freePort()
	debug, err2 := freePort()
	if err := errAnd(err1, err2); err != nil {
		return nil, err
	}
	hostname = cmp.Or(hostname, "localhost:"+port)
	did, err := identity.DIDWeb(hostname)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(tidingsConfig(dir, port, debug, hostname)), 0o600); err != nil {
		return nil, err
	}
	run := func(args ...string) (string, error) {
		var out, log bytes.Buffer
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stdout, cmd.Stderr = &out, &log
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("tidings %s: %w: %s", args, err, log.Bytes())
		}
		return strings.TrimSpace(out.String()), nil
	}
	if _, err := run("hold", "init", config); err != nil {
		return nil, err
	}
	s := &Server{Name: "tidings", URL: "http://localhost:" + port, Debug: "http://localhost:" + debug, DID: did}
	if s.Password, err = run("hold", "password", config); err != nil {
		return nil, err
	}
	if s.Secret, err = tokenSecret(filepath.Join(dir, "data"), s.DID); err != nil {
		return nil, fmt.Errorf("read what signs the tokens: %w", err)
	}
	return s, s.serve(ctx, program, config)
}

// Place writes into the configuration of what StartTidings made in dir that its
// account is at another place, as "https://pds.example.com", where key signs,
// or here: "". Without a key the hold's own has moved along.
func Place(dir, place, key string) error {
	config := filepath.Join(dir, "config.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	before, _, _ := strings.Cut(string(text), "login: true")
	moved := ""
	switch {
	case place != "" && key != "":
		moved = fmt.Sprintf(", moved_to: {service: %q, key: %q}", place, key)
	case place != "":
		moved = fmt.Sprintf(", moved_to: {service: %q}", place)
	}
	return os.WriteFile(config, []byte(before+"login: true"+moved+"}\n"), 0o600)
}

// Resume serves again what was stopped. Tokens stay good.
func (s *Server) Resume(ctx context.Context, program, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return s.serve(ctx, program, filepath.Join(dir, "config.yml"))
}

// RestartTidings serves once more what StartTidings made in dir. Nobody can
// log in to this Server: the password was told once.
func RestartTidings(ctx context.Context, program, dir string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	config := filepath.Join(dir, "config.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(string(text), "127.0.0.1:")
	port, _, _ := strings.Cut(after, `"`)
	s := &Server{Name: "tidings", URL: "http://localhost:" + port, DID: "did:web:" + Handle}
	return s, s.serve(ctx, program, config)
}

func (s *Server) serve(ctx context.Context, program, config string) error {
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := s.start(cmd); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return errAnd(err, s.Stop())
	}
	return nil
}

func tidingsConfig(dir, port, debug, hostname string) string {
	return fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/registry}}
http: {addr: "127.0.0.1:%[2]s", draintimeout: 5s, debug: {addr: "127.0.0.1:%[4]s"}}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/data
        hold: {hostname: "%[3]s", login: true}
`, dir, port, hostname, debug)
}

// tokenSecret is what the hold signs its session tokens with, made from its
// files as it makes it.
func tokenSecret(data, did string) ([]byte, error) {
	key, err := identity.LoadKey(filepath.Join(data, "hold.key"))
	if err != nil {
		return nil, err
	}
	line, err := os.ReadFile(filepath.Join(data, "hold.password"))
	if err != nil {
		return nil, err
	}
	fields := strings.Split(strings.TrimSpace(string(line)), "$")
	salt, err := base64.RawStdEncoding.DecodeString(fields[len(fields)-2])
	if err != nil {
		return nil, err
	}
	return hkdf.Key(sha256.New, key.Bytes(), salt, "tidings hold session tokens of "+did, 32)
}
