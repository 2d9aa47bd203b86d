// Package process runs the servers of benchmarks and of tests as processes: it starts
// and stops them, waits until they respond, and reads their CPU time and memory.
package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// stopTimeout is how long a process has to exit after SIGTERM.
const stopTimeout = 20 * time.Second

// A Process is a running or ended process.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of the process, valid after done
}

// Start starts cmd. The name is for errors.
func Start(name string, cmd *exec.Cmd) (*Process, error) {
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Stop sends SIGTERM and waits for the process, which is killed if it does not exit
// within 20 seconds. It returns the error of the process.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	select {
	case <-p.done:
		return p.err
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within %s", p.name, stopTimeout)
	}
}

// Kill sends SIGKILL and waits for the process.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails if the process has ended
	<-p.done
}

// WaitReady calls ready until it returns nil, the process ends, or ctx is done.
func (p *Process) WaitReady(ctx context.Context, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended during its start: %v", p.name, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", p.name, err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WaitIdle waits until the process has used less than 2 % of a core for the duration
// rest. It gives up after limit and reports whether the process became idle.
func (p *Process) WaitIdle(ctx context.Context, rest, limit time.Duration) bool {
	const step = 40 * time.Millisecond
	idle := time.Duration(0)
	for waited := time.Duration(0); waited < limit; waited += step {
		before := p.CPU()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(step):
		}
		if p.CPU()-before >= step/50 {
			idle = 0
			continue
		}
		if idle += step; idle >= rest {
			return true
		}
	}
	return false
}

// FreeAddr returns an address on loopback whose port is free. The port is below the
// ephemeral range, so that no connection gets it while the server is stopped.
func FreeAddr() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		last = err
	}
	return "", fmt.Errorf("find a free port: %w", last)
}
