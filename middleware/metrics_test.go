package middleware

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Registries in one process, and a registry that is opened again, share their metrics.
func TestSharedMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	for range 2 {
		m := NewMetrics(registry)
		m.unrecorded("push")
		m.tooMany()
		m.panic()
	}
	m := NewMetrics(registry)
	if f, n, p := testutil.ToFloat64(m.failed.WithLabelValues("push")), testutil.ToFloat64(m.busy), testutil.ToFloat64(m.panicked); f != 2 || n != 2 || p != 2 {
		t.Errorf("counted %v, %v, %v; want 2 each", f, n, p)
	}
	if n := testutil.CollectAndCount(registry); n != 4 {
		t.Errorf("%d metrics registered, want 4", n)
	}
}

func TestNilMetrics(t *testing.T) {
	t.Parallel()
	var m *Metrics
	m.unrecorded("push")
	m.tooMany()
	m.panic()
}
