package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// Compare compares the storage, journal, records and counts of a stopped registry, and
// calls visit with each difference, and progress with how many of what were compared. It
// returns the number of pending events, which can be the cause of differences. It changes
// nothing, except that it truncates incomplete writes of a crash, as every start does.
func Compare(ctx context.Context, host *configuration.Configuration, log io.Writer, progress func(noun string, done int64), visit func(reconcile.Difference) error) (pending uint64, err error) {
	r, err := openStopped(host, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	for _, sink := range r.notifier.Health() {
		pending = max(pending, sink.Depth)
	}
	return pending, r.notifier.Stores().Check(ctx, progress, visit)
}

// Reconcile makes the next start of a stopped registry rebuild the ledger from the
// account, compare it with storage, and write or delete the records that differ.
func Reconcile(ctx context.Context, host *configuration.Configuration, log io.Writer) (err error) {
	r, err := openStopped(host, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	return r.notifier.Stores().WantRebuild()
}

// readInterval is the time between two calls that read from an account on another PDS. The
// reference PDS allows 10 a second.
const readInterval = 100 * time.Millisecond

// openComparedAccount opens the account, to be read as fast as its PDS allows.
func (r *runtime) openComparedAccount() error {
	if r.options.Account == nil {
		return r.openRepo()
	}
	if err := r.openPDS(); err != nil {
		return err
	}
	r.writes = delivery.ReadSlowly(r.writes, readInterval)
	return nil
}

// openStopped opens the stores of a stopped registry. It starts no sinks and serves
// nothing.
func openStopped(host *configuration.Configuration, log io.Writer) (*runtime, error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return nil, err
	}
	if !found || !options.Enabled || options.Hold == nil && options.Account == nil {
		return nil, fmt.Errorf("the entry %q has neither hold nor account, so there are no records", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(log, host.Log), metrics: prometheus.NewRegistry(), events: sink.NewMetrics()}
	if r.storage() == nil {
		return nil, errors.New("the registry's storage is in memory or a pull-through cache: there is nothing to compare with")
	}
	for _, open := range []func() error{r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, r.openHandles, r.openComparedAccount, r.openNotifier} {
		if err := open(); err != nil {
			return nil, errors.Join(err, r.close(context.Background()))
		}
	}
	return r, nil
}
