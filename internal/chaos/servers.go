package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/faultproxy"
	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// servers are a registry, the PDS of its account, and a proxy between them.
type servers struct {
	pds      *pds.Server
	proxy    *faultproxy.Proxy
	tally    *tally
	calls    chan struct{} // a value for a call of applyWrites that has just begun
	registry *pds.Registry
}

// maxWaitCall is how long the next call of applyWrites may take to begin. The registry
// makes none while it waits for the end of a limit.
const maxWaitCall = 3 * time.Second

// start starts everything, with files in dir. Root is the root of the repository.
func start(ctx context.Context, root, dir string) (*servers, error) {
	s := &servers{calls: make(chan struct{}, 1)}
	if err := s.start(ctx, root, dir); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *servers) start(ctx context.Context, root, dir string) error {
	if err := pds.Install(ctx, root); err != nil {
		return err
	}
	program, err := pds.Build(ctx, root, dir)
	if err != nil {
		return err
	}
	front, service, err := listen()
	if err != nil {
		return err
	}
	directory, plc, err := listen()
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(directory, newDirectory(service)) }()
	if s.pds, err = pds.StartReference(ctx, root, filepath.Join(dir, "pds"), "PDS_DID_PLC_URL="+plc); err != nil {
		return err
	}
	if s.proxy, err = faultproxy.New(s.pds.URL, func(c faultproxy.Call) { s.tally.add(c) }); err != nil {
		return err
	}
	go func() { _ = http.Serve(front, s) }()
	s.tally = newTally()
	proxied := *s.pds
	proxied.URL = service
	if s.registry, err = pds.NewRegistry(ctx, program, filepath.Join(dir, "registry"), &proxied, options); err != nil {
		return err
	}
	s.tally = newTally() // without the owner's login
	return s.registry.Start(ctx)
}

// options are those of the registry: each image is announced at once, and nothing else is
// published.
const options = `        announce: {tags: ["*"], collect: 0s, cooldown: 0s, daily_limit: 0}
        stats: {records: off}
`

// ServeHTTP passes the registry's calls to the proxy.
func (s *servers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/xrpc/"+applyWrites {
		select {
		case s.calls <- struct{}{}:
		default:
		}
	}
	s.proxy.ServeHTTP(w, r)
}

// waitCall returns when a call of applyWrites began d ago, or if none begins for a while.
func (s *servers) waitCall(ctx context.Context, d time.Duration) {
	select {
	case <-s.calls: // of an earlier call
	default:
	}
	select {
	case <-s.calls:
		wait(ctx, d)
	case <-time.After(maxWaitCall):
	case <-ctx.Done():
	}
}

// listen returns a listener on loopback and its base URL. The PDS accepts no address as
// the host of a service.
func listen() (l net.Listener, url string, err error) {
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return l, "http://localhost:" + port, err
}

// logLines is how many lines of the registry's log are printed after a failed run.
const logLines = 40

// printLog prints the end of the registry's log, without the responses that the
// distribution registry logs as errors, such as that a blob is not there yet.
func (s *servers) printLog(out io.Writer) {
	content, err := os.ReadFile(s.registry.LogFile())
	if err != nil {
		fmt.Fprintln(out, err)
		return
	}
	lines := slices.DeleteFunc(bytes.SplitAfter(content, []byte("\n")), func(line []byte) bool {
		return bytes.Contains(line, []byte("response completed with error"))
	})
	for _, line := range lines[max(0, len(lines)-logLines):] {
		fmt.Fprintf(out, "registry: %s", line)
	}
}

// stop stops what runs.
func (s *servers) stop() {
	if s.registry != nil && s.registry.Process != nil {
		_ = s.registry.Stop()
	}
	if s.pds != nil && s.pds.Process != nil {
		_ = s.pds.Stop()
	}
}

// get decodes the response of a URL, which must be a success.
func get(ctx context.Context, url string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s %.300s", url, res.Status, content)
	}
	return json.Unmarshal(content, out)
}
