package notifier

import (
	"context"
	"errors"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// Others may write to the account once the stores were compared, and while there is free
// space.
func TestReady(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.push(image("a", 1))
	r.drain()
	if err := r.stores.Ready(); err != nil {
		t.Error(err)
	}
	r.full.Store(true)
	if err := r.stores.Ready(); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("without free space: %v", err)
	}
	r.stop()
	r.manual = true
	r.open(nil)
	if err := r.stores.Ready(); !errors.Is(err, reconcile.ErrNotVerified) {
		t.Errorf("before the stores were compared: %v", err)
	}
	reason := errors.New("the account is away")
	r.stores.Confirm = func(context.Context) error { return reason }
	if err := r.stores.Verify(t.Context()); !errors.Is(err, reason) {
		t.Errorf("comparing the stores: %v", err)
	}
	if err := r.stores.Ready(); !errors.Is(err, reconcile.ErrNotVerified) || !errors.Is(err, reason) {
		t.Errorf("after the stores could not be compared: %v", err)
	}
}
