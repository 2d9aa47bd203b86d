// Package clocktest simulates system clocks for tests.
package clocktest

import (
	"sync"
	"time"
)

// A Machine is a machine whose system clock can be set.
type Machine struct {
	mu     sync.Mutex
	wall   time.Time
	uptime time.Duration
	Real   bool // real time is added
	since  time.Time
}

// New returns a machine with the current time.
func New() *Machine {
	return &Machine{wall: time.Now().Round(0), uptime: time.Hour, since: time.Now()}
}

func (m *Machine) passed() time.Duration {
	if !m.Real {
		return 0
	}
	return time.Since(m.since)
}

// Now is the time of the system clock.
func (m *Machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wall.Add(m.passed())
}

// Elapsed is the time of a monotonic clock.
func (m *Machine) Elapsed() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uptime + m.passed()
}

// Pass lets time pass.
func (m *Machine) Pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall, m.uptime = m.wall.Add(d), m.uptime+d
}

// Set moves the system clock.
func (m *Machine) Set(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall = m.wall.Add(by)
}
