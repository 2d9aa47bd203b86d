package middleware

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier"
)

// Compare reads what a stopped registry has stored, recorded, published and
// counted, and calls visit with each difference. It returns how many events are pending,
// which can be the reason for some of them. It changes nothing but what any
// start does: what a crash left half-written is cut off.
func Compare(ctx context.Context, host *configuration.Configuration, visit func(notifier.Difference) error) (pending uint64, err error) {
	r, err := stopped(host)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	for _, sink := range r.notifier.Health() {
		pending = max(pending, sink.Depth)
	}
	return pending, r.notifier.Check(ctx, visit)
}

// Reconcile lets the next start of a stopped registry learn from its account what
// is recorded, compare that with storage, and publish or delete what differs.
func Reconcile(ctx context.Context, host *configuration.Configuration) (err error) {
	r, err := stopped(host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	return r.notifier.WantRebuild()
}

// stopped opens the stores of a configuration without serving them.
func stopped(host *configuration.Configuration) (*runtime, error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return nil, err
	}
	if !found || !options.Enabled || options.Hold == nil {
		return nil, fmt.Errorf("the entry %q has no hold, so nothing is recorded", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(os.Stderr, host.Log), metrics: prometheus.NewRegistry(), events: notifier.NewMetrics()}
	if r.storage() == nil {
		return nil, errors.New("the registry's storage is in its memory, or a cache of another registry: there is nothing to compare with")
	}
	for _, open := range []func() error{r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, r.openRepo, r.openNotifier} {
		if err := open(); err != nil {
			return nil, errors.Join(err, r.close(context.Background()))
		}
	}
	return r, nil
}
