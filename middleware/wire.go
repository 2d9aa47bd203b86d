package middleware

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/handles"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// opener opens the runtime of a configuration, repeatedly if its disk cannot be
// written. Its fields are shared by all attempts.
type opener struct {
	options  *config.Options
	host     *configuration.Configuration
	log      *slog.Logger
	metrics  prometheus.Registerer
	events   *sink.Metrics
	requests *Metrics
}

// runtime holds the parts of Tidings for one configuration. Each open method adds
// one part; close closes them in reverse order.
type runtime struct {
	options *config.Options
	host    *configuration.Configuration
	log     *slog.Logger
	metrics prometheus.Registerer
	events  *sink.Metrics // registered by wire

	closers []func(context.Context) error
	mounts  []mount

	instance   string // of the data folder
	state      *store.Store
	dead       *deadletters.Store
	journal    *journal.Journal
	redis      *rediscounts.DB // nil: not configured
	counter    *counter.Counter
	classifier *classify.Classifier
	repo       *repo.Repo
	identity   identity.Identity // of the repo
	network    *hold.Network     // of the repo
	broken     *hold.Broken      // replaces the hold; nil: it is open
	deferred   *deferredHold     // opens the hold later; nil: it is open, or a restart is needed
	pds        *pds.Account      // instead of a hold; nil: there is none
	remote     *remote.Hold      // that pushes are reported to, instead of an account; nil: there is none
	account    string            // DID that records are written to, or that reports
	writes     delivery.Publisher
	urgent     delivery.Publisher      // writes posts; nil: writes
	appview    *appview.Watcher        // nil: no AppView is asked about posts
	handles    *handles.Resolver       // of owners
	notifier   *notifier.Notifier      // nil: a hold is served without a registry
	stats      *statsrecords.Publisher // nil: counts are not published
	backfill   admin.Backfill          // nil: there are no records
	records    admin.Records           // nil: there are none
	site       *publication.Site       // nil: the registry is not a publication
	server     http.Handler            // of the hold; nil: there is none, or it is broken

	copied func(part string) // called after a backup has copied a part; nil except in tests
}

// wire creates and connects the parts that a configuration asks for. If the disk of
// the data folder is full or read-only, it returns a fallback, which opens them later.
func wire(host *configuration.Configuration) (parts, error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return parts{}, err
	}
	if !found || !options.Enabled {
		return parts{}, nil
	}
	o := &opener{
		options:  options,
		host:     host,
		log:      newLog(os.Stderr, host.Log),
		metrics:  prometheus.DefaultRegisterer,
		events:   sink.NewMetrics(),
		requests: NewMetrics(),
	}
	for _, warning := range options.Warnings() {
		o.log.Warn(warning)
	}
	unregister := registerCollectors(o.metrics, o.log, slices.Concat(o.events.Collectors(), o.requests.Collectors())...)
	opened, err := o.open(context.Background())
	if isUnwritable(err) {
		opened, err = o.newFallback(err), nil
	}
	if err != nil {
		unregister()
		return parts{}, err
	}
	inner := opened.close
	opened.close = func(ctx context.Context) error {
		defer unregister()
		return inner(ctx)
	}
	return opened, nil
}

// open opens all parts or, after an error, none.
func (o *opener) open(ctx context.Context) (parts, error) {
	r, err := o.openRuntime()
	if err != nil {
		return parts{}, err
	}
	return o.parts(recorder{r.notifier}, r.permit(), r.mounts, r.close), nil
}

func (o *opener) openRuntime() (*runtime, error) {
	r := &runtime{options: o.options, host: o.host, log: o.log, metrics: o.metrics, events: o.events}
	for _, open := range []func() error{
		r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, r.openHandles, r.openAccount, r.openRemote, r.openAppView, r.openNotifier, r.openStatsRecords, r.openBackfill, r.openHold, r.openAPI, r.openPages, r.run, r.openAdmin,
	} {
		if err := open(); err != nil {
			return nil, errors.Join(markUnwritable(err), r.close(context.Background()))
		}
	}
	return r, nil
}

func (o *opener) parts(recorder observe.Recorder, permit func(repository, actor string) error, mounts []mount, close func(context.Context) error) parts {
	return parts{
		recorder: recorder,
		permit:   permit,
		mounts:   mounts,
		addr:     o.options.HTTP.Addr,
		proxies:  o.options.HTTP.Clients(),
		log:      o.log,
		metrics:  o.requests,
		close:    close,
	}
}

func (r *runtime) close(ctx context.Context) error {
	var failed error
	for i := len(r.closers) - 1; i >= 0; i-- {
		failed = errors.Join(failed, r.closers[i](ctx))
	}
	r.closers = nil
	return failed
}

func (r *runtime) onClose(f func() error) {
	r.closers = append(r.closers, func(context.Context) error { return f() })
}

// register registers collectors, which close unregisters.
func (r *runtime) register(collectors ...prometheus.Collector) {
	unregister := registerCollectors(r.metrics, r.log, collectors...)
	r.onClose(func() error { unregister(); return nil })
}

// registerCollectors registers collectors, which the registry's debug server exposes,
// until unregister is called. Those of a second registry in this process are not
// registered.
func registerCollectors(on prometheus.Registerer, log *slog.Logger, collectors ...prometheus.Collector) (unregister func()) {
	var registered []prometheus.Collector
	for _, c := range collectors {
		if err := on.Register(c); err != nil {
			log.Warn("metrics not registered: another registry in this process has registered them", "error", err)
			break
		}
		registered = append(registered, c)
	}
	return func() {
		for _, c := range registered {
			on.Unregister(c)
		}
	}
}

// run starts the sinks, last of all parts, so that close stops them first.
func (r *runtime) run() error {
	r.background(r.notifier.Run, r.handles.Run, r.counter.Run, r.takeCollected, r.appview.Run, r.stats.Run)
	return nil
}

// background runs functions until close cancels their context.
func (r *runtime) background(runs ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	for _, run := range runs {
		group.Go(func() error { return run(ctx) })
	}
	r.onClose(func() error {
		cancel()
		return group.Wait()
	})
}
