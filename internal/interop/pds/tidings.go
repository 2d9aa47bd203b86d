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

// Build builds the tidings program in dir, with the flags of the Makefile.
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

// StartTidings creates a hold in the new directory dir and serves it. Its DID cannot be
// resolved.
func StartTidings(ctx context.Context, program, dir string) (*Server, error) {
	return startTidings(ctx, program, dir, Handle)
}

// StartLocal is StartTidings with a DID that this machine can resolve.
func StartLocal(ctx context.Context, program, dir string) (*Server, error) {
	return startTidings(ctx, program, dir, "")
}

// StartAccepting serves a hold without a registry in the new directory dir. Its DID is that
// of hostname, which this machine can resolve, and which forwards to the returned server.
// It accepts notifications of the accounts with the DIDs in owners, whose images are
// public below oss/, and resolves them at a directory of did:plc.
func StartAccepting(ctx context.Context, program, dir, hostname, plc string, owners ...string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	did, err := identity.DIDWeb(hostname)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(acceptingConfig(dir, ports[0], hostname, plc, owners)), 0o600); err != nil {
		return nil, err
	}
	if _, err := run(ctx, program, "hold", "init", config); err != nil {
		return nil, err
	}
	s := &Server{Name: "the hold", URL: "http://localhost:" + ports[0], DID: did}
	return s, s.serve(ctx, program, "hold", "serve", config)
}

func acceptingConfig(dir, port, hostname, plc string, owners []string) string {
	public := make([]string, len(owners))
	for i, owner := range owners {
		public[i] = owner + "/oss/**"
	}
	return fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: inmemory
http: {addr: "127.0.0.1:%[2]s", draintimeout: 5s}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/data
        public: ["%[6]s"]
        hold: {hostname: %[3]q, plc: %[4]q, owners: ["%[5]s"]}
`, dir, port, hostname, plc, strings.Join(owners, `", "`), strings.Join(public, `", "`))
}

// run runs a command of the program and returns its output.
func run(ctx context.Context, program string, args ...string) (string, error) {
	var out, log bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tidings %s: %w: %s", args, err, log.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}

// startTidings serves a hold with the hostname, or localhost and its port if that is "".
func startTidings(ctx context.Context, program, dir, hostname string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	port, debug := ports[0], ports[1]
	hostname = cmp.Or(hostname, "localhost:"+port)
	did, err := identity.DIDWeb(hostname)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(tidingsConfig(dir, port, debug, hostname)), 0o600); err != nil {
		return nil, err
	}
	if _, err := run(ctx, program, "hold", "init", config); err != nil {
		return nil, err
	}
	s := &Server{Name: "tidings", URL: "http://localhost:" + port, Debug: "http://localhost:" + debug, DID: did}
	if s.Password, err = run(ctx, program, "hold", "password", config); err != nil {
		return nil, err
	}
	if s.Secret, err = tokenSecret(filepath.Join(dir, "data"), s.DID); err != nil {
		return nil, fmt.Errorf("read the key of the session tokens: %w", err)
	}
	return s, s.serve(ctx, program, "serve", config)
}

// SetMovedTo sets hold.moved_to in the configuration that StartTidings wrote to dir, to a
// service such as "https://pds.example.com" with a signing key; "" is the hold's own
// key. Without a service it removes the option.
func SetMovedTo(dir, service, key string) error {
	config := filepath.Join(dir, "config.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	before, _, _ := strings.Cut(string(text), "login: true")
	moved := ""
	switch {
	case service != "" && key != "":
		moved = fmt.Sprintf(", moved_to: {service: %q, key: %q}", service, key)
	case service != "":
		moved = fmt.Sprintf(", moved_to: {service: %q}", service)
	}
	return os.WriteFile(config, []byte(before+"login: true"+moved+"}\n"), 0o600)
}

// Resume starts a stopped server again. Its tokens stay valid.
func (s *Server) Resume(ctx context.Context, program, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.serve(ctx, program, "serve", filepath.Join(dir, "config.yml"))
}

// RestartTidings serves the hold that StartTidings created in dir. The returned Server
// has no password, which is printed only once.
func RestartTidings(ctx context.Context, program, dir string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	config := filepath.Join(dir, "config.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(string(text), "127.0.0.1:")
	port, _, _ := strings.Cut(after, `"`)
	s := &Server{Name: "tidings", URL: "http://localhost:" + port, DID: "did:web:" + Handle}
	return s, s.serve(ctx, program, "serve", config)
}

// serve runs a command of the program that serves a hold.
func (s *Server) serve(ctx context.Context, program string, command ...string) error {
	cmd := exec.Command(program, command...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return s.start(ctx, cmd)
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

// tokenSecret derives the key of the hold's session tokens from its files.
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
