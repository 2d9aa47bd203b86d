package relay

import (
	"bytes"
	"os/exec"
	"sync"
	"testing"
)

// process is a program that runs until it is killed.
type process struct {
	cmd *exec.Cmd
	log *output
}

func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{exec.Command(name, args...), &output{}}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// kill sends SIGKILL.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails if the process has ended
	p.cmd.Wait()
}

// output has the output of a process, readable while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
