package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/middleware/storage"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

func (r *runtime) openNotifier() error {
	cfg := notifier.Config{
		Journal: r.journal, State: state.OnPebble(r.state), Counter: r.counter, Classifier: r.classifier, DeadLetters: r.dead,
		Public:     r.options.Visible,
		Now:        clock.Now,
		Storage:    r.storage(),
		DataFolder: r.dataFolderID(),
		Space:      r.state.Space,
		Metrics:    r.events,
		Logger:     r.log,
	}
	if cfg.Remote = r.remoteConfig(); cfg.Remote != nil {
		cfg.Account, cfg.Owner, cfg.Owners = r.account, r.options.Owner, r.options.OwnerRules()
	}
	if r.writes != nil {
		cfg.Publisher, cfg.Urgent = r.writes, r.urgent
		cfg.Account = r.account
		cfg.Shared = r.pds != nil
		cfg.AccountFolder = r.accountFolderID()
		cfg.Owner, cfg.Owners, cfg.Handles = r.options.Owner, r.options.OwnerRules(), r.handles
		cfg.Notified = r.options.Hold != nil && len(r.options.Hold.Registries)+len(r.options.Hold.Owners) > 0
		cfg.PublicOptions = r.publicOptions()
		cfg.Quota, cfg.QuotaMetrics = r.options.QuotaTiers(), quota.NewMetrics()
		r.register(cfg.QuotaMetrics.Collectors()...)
		var err error
		if cfg.Announce, err = r.announce(); err != nil {
			return err
		}
	}
	n, err := notifier.New(cfg)
	if err != nil {
		return err
	}
	r.register(n)
	if r.pds != nil {
		r.register(pdsCollector{r.pds, n.PendingWrites})
	}
	r.notifier = n
	return nil
}

// storage returns the registry's storage; nil if it is not accessible, or if the
// registry is a pull-through cache, whose images were pushed elsewhere.
func (r *runtime) storage() stored.Reader {
	if r.host.Storage.Type() == "inmemory" || r.host.Proxy.RemoteURL != "" {
		return nil
	}
	return storage.NewReader(context.Background(), r.host)
}

// storageTimeout limits a storage lookup whose caller has no deadline.
const storageTimeout = 10 * time.Second

// hasTag returns a function that reports whether the registry's storage has a tag;
// nil if storage is not accessible.
func (r *runtime) hasTag() func(repository, tag string) (bool, error) {
	storage := r.storage()
	if storage == nil {
		return nil
	}
	return func(repository, tag string) (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), storageTimeout)
		defer cancel()
		_, err := storage.Tagged(ctx, repository, tag)
		if errors.Is(err, stored.ErrNotStored) {
			return false, nil
		}
		return err == nil, err
	}
}

// recorder implements observe.Recorder with the notifier.
type recorder struct{ *notifier.Notifier }

func (r recorder) Intend(ctx context.Context, p notifier.Push) (observe.Intent, error) {
	intent, err := r.Notifier.Intend(ctx, p)
	if err != nil {
		return nil, quotaError(err)
	}
	return intent, nil
}

func (r recorder) IntendDelete(ctx context.Context, d notifier.Delete) (observe.Intent, error) {
	return r.Notifier.IntendDelete(ctx, d)
}
