package middleware

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// The metrics of a second registry in a process are not registered; those of a registry
// that is opened again are.
func TestRegisterCollectors(t *testing.T) {
	t.Parallel()
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	panics := func() float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "tidings_http_panics_total" {
				return f.Metric[0].GetCounter().GetValue()
			}
		}
		return -1
	}
	first, second, third := NewMetrics(), NewMetrics(), NewMetrics()
	unregister := registerCollectors(registry, log, first.Collectors()...)
	unregisterSecond := registerCollectors(registry, log, second.Collectors()...)
	second.panic()
	if got := panics(); got != 0 {
		t.Errorf("the first registry has %v panics, want 0", got)
	}
	unregisterSecond()
	first.panic()
	if got := panics(); got != 1 {
		t.Errorf("after the second was closed, the first registry has %v panics, want 1", got)
	}
	unregister()
	if got := panics(); got != -1 {
		t.Errorf("%v panics of a closed registry, want none registered", got)
	}
	registerCollectors(registry, log, third.Collectors()...)
	third.unrecorded("push")
	if got := testutil.ToFloat64(third.failed.WithLabelValues("push")); got != 1 || panics() != 0 {
		t.Errorf("the registry that was opened again has %v failed pushes and %v panics, want 1 and 0", got, panics())
	}
}

func TestNilMetrics(t *testing.T) {
	t.Parallel()
	var m *Metrics
	m.unrecorded("push")
	m.tooMany()
	m.panic()
}
