package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/internal/process"
)

// A Registry is a registry of the tidings program that publishes to an account on a
// reference PDS, or reports to a hold with it.
type Registry struct {
	Host string // with its port
	Dir  string // of its files: config.yml, registry.log, and the folders registry and data

	program string
	*process.Process
}

// apiToken gives access to the registry's whole API.
const apiToken = "interop-token-0123456789"

// NewRegistry writes the configuration of a registry that publishes to the account of s to
// the new directory dir. Options are added to those of the middleware, with an indent of
// 8 spaces; repositories below oss/ are public.
func NewRegistry(ctx context.Context, program, dir string, s *Server, options string) (*Registry, error) {
	return newRegistry(ctx, program, dir, s, fmt.Sprintf("account: {%s, budget: {hour: off, day: off}}", s.account(dir)), options)
}

// NewReporter is NewRegistry for a registry that reports to the hold with a DID, with the
// tokens of the account.
func NewReporter(ctx context.Context, program, dir string, s *Server, hold, options string) (*Registry, error) {
	return newRegistry(ctx, program, dir, s, fmt.Sprintf("remote: {hold: %q, pulls: true, account: {%s}}", hold, s.account(dir)), options)
}

// account are the options of the account, for a registry in dir.
func (s *Server) account(dir string) string {
	return fmt.Sprintf("service: %q, identifier: %s, password_file: %s/app-password, plc: %q", s.URL, Handle, dir, s.PLC)
}

func newRegistry(ctx context.Context, program, dir string, s *Server, writer, options string) (*Registry, error) {
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	password, err := s.AppPassword(ctx)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/registry}, maintenance: {uploadpurging: {enabled: false}}}
http: {addr: %[2]q, secret: interop, draintimeout: 5s}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/data
        public: ["oss/**"]
        %[3]s
        api: {token_file: %[1]s/token}
%[4]s`, dir, addr, writer, options)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, content := range map[string]string{"app-password": password, "token": apiToken, "config.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return &Registry{Host: addr, Dir: dir, program: program}, nil
}

// AppPassword creates an app password, as the owner of an account does for a program.
func (s *Server) AppPassword(ctx context.Context) (string, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return "", err
	}
	var created struct{ Password string }
	err = call(ctx, http.MethodPost, s.URL+"/xrpc/com.atproto.server.createAppPassword", access, []byte(`{"name":"tidings"}`), &created)
	return created.Password, err
}

// Start starts the registry and waits until it responds. Env is added to its environment.
func (r *Registry) Start(ctx context.Context, env ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	log, err := os.OpenFile(r.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(r.program, "serve", filepath.Join(r.Dir, "config.yml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), "OTEL_TRACES_EXPORTER=none"), env...)
	if r.Process, err = process.Start("the registry", cmd); err != nil {
		return err
	}
	err = r.WaitReady(ctx, func() error { return call(ctx, http.MethodGet, "http://"+r.Host+"/v2/", "", nil, nil) })
	if err != nil {
		_ = r.Stop()
		content, _ := os.ReadFile(r.LogFile())
		return fmt.Errorf("%w\n%s", err, content)
	}
	return nil
}

// API gets a path of the registry's API, such as "pushes", with the token.
func (r *Registry) API(ctx context.Context, path string, out any) error {
	return call(ctx, http.MethodGet, "http://"+r.Host+"/tidings/api/v1/"+path, apiToken, nil, out)
}

// LogFile is the file of the registry's log.
func (r *Registry) LogFile() string { return filepath.Join(r.Dir, "registry.log") }

// Pending returns the number of events that a sink has not processed, for the sink that
// has the most, and the number of dead letters.
func (r *Registry) Pending(ctx context.Context) (pending uint64, deadLetters int, err error) {
	var health struct {
		Sinks []struct {
			Depth       uint64
			DeadLetters int
		}
	}
	err = r.API(ctx, "health", &health)
	for _, sink := range health.Sinks {
		pending = max(pending, sink.Depth)
		deadLetters += sink.DeadLetters
	}
	return pending, deadLetters, err
}

// WaitDrained waits until no event is pending. Dead letters are an error.
func (r *Registry) WaitDrained(ctx context.Context) error {
	for {
		pending, deadLetters, err := r.Pending(ctx)
		switch {
		case err != nil:
			return err
		case deadLetters > 0:
			return fmt.Errorf("%d events are dead letters, see %s", deadLetters, r.LogFile())
		case pending == 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d events are pending: %w", pending, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// call sends a request, with a bearer token and a JSON body unless they are empty, that
// must succeed, and decodes the response into out, unless that is nil.
func call(ctx context.Context, method, url, bearer string, input []byte, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(input))
	if err != nil {
		return err
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	if input != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %s %.300s", method, url, res.Status, content)
	case out == nil:
		return nil
	}
	return json.Unmarshal(content, out)
}
