package middleware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/handles"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/middleware/storage"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
	"github.com/tidings-dev/tidings/notifier/stored"
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

func (r *runtime) openFolder() error {
	unlock, err := datafolder.Lock(r.options.LockFile())
	if err != nil {
		return err
	}
	r.onClose(unlock)
	_ = os.RemoveAll(filepath.Join(r.options.Data, stagingFolder)) // of a backup that a crash interrupted
	r.restrictFolder()
	r.instance, err = datafolder.Instance(r.options.LockFile())
	return err
}

// restrictFolder removes access of other users to the data folder, which earlier
// versions and restored backups may have left. For the folder itself that can fail,
// since another user may own it.
func (r *runtime) restrictFolder() {
	if info, err := os.Stat(r.options.Data); err == nil && info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(r.options.Data, info.Mode()&^0o077)
	}
	opened, err := private.Close(r.options.Private()...)
	if len(opened) > 0 {
		r.log.Info("access of other users to the data folder removed", "dir", r.options.Data, "files", len(opened), "first", opened[0])
	}
	if err != nil {
		r.log.Warn("other users may have access to the data folder", "dir", r.options.Data, "error", err)
	}
}

func (r *runtime) openState() error {
	db, err := state.Open(state.Config{Dir: r.options.StateDir(), Reserve: uint64(r.options.Reserve), Logger: r.log})
	if err != nil {
		return err
	}
	r.onClose(db.Close)
	r.state, r.dead = db, deadletters.New(state.OnPebble(db), db.Space)
	return nil
}

func (r *runtime) openJournal() error {
	j, err := journal.Open(journal.Config{
		Dir:         r.options.JournalDir(),
		SegmentSize: int64(r.options.Journal.Segment),
		Limit:       int64(r.options.Journal.Limit),
		Wait:        r.options.Journal.Wait,
		Dropped:     r.dead.Dropped,
		Logger:      r.log,
	})
	if err != nil {
		return err
	}
	r.onClose(j.Close)
	r.journal = j
	return nil
}

func (r *runtime) openRedis() error {
	if r.options.Redis == nil {
		return nil
	}
	options, err := r.options.Redis.Client()
	if err != nil {
		return err
	}
	// Without this, calls to a Redis that does not answer exceed the callers' deadlines.
	options.ContextTimeoutEnabled = true
	redis.SetLogger(redisLog{r.log.With("component", "redis")})
	client := redis.NewUniversalClient(options)
	r.onClose(client.Close)
	r.redis = rediscounts.New(client, r.options.Redis.Name)
	return nil
}

func (r *runtime) openCounter() error {
	classifier, err := classify.New(classify.Config{
		IgnoreUserAgents: r.options.Count.IgnoreUserAgents,
		IgnoreActors:     r.options.Count.IgnoreActors,
		HeadWindow:       r.options.Count.HeadWindow,
		Now:              clock.Now,
	})
	if err != nil {
		return err
	}
	r.classifier = classifier
	metrics := counter.NewMetrics()
	r.counter, err = counter.Open(r.state, counter.Config{
		Redis:     r.redis,
		Instance:  r.instance,
		Host:      hostname(),
		Journal:   r.journal.ID,
		LastEvent: r.lastEvent,
		HasTag:    r.hasTag(),
		Learn:     classifier.Learn,
		Now:       clock.Now,
		Logger:    r.log,
		Metrics:   metrics,
	})
	if err != nil {
		return err
	}
	r.register(metrics.Collectors()...)
	children, err := r.counter.Children()
	if err != nil {
		return err
	}
	classifier.Learn(children...)
	return nil
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

// lastEvent returns the sequence number of a stream's last event; 0 for an unknown
// stream.
func (r *runtime) lastEvent(stream uint8) uint64 {
	switch s := journal.Stream(stream); s {
	case journal.Pushes, journal.Pulls:
		return r.journal.Status(s).Last
	}
	return 0
}

func hostname() string {
	name, _ := os.Hostname() // for the operator, in `tidings redis list`
	return name
}

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

// dataFolderID identifies the data folder and the journal's folder in it. The second
// is needed because a journal that was restored alone can have lost events that no
// reader had read, which sequence numbers do not show.
func (r *runtime) dataFolderID() string {
	data, journal := datafolder.ID(r.options.LockFile()), datafolder.ID(r.options.JournalDir())
	if data == "" || journal == "" {
		return ""
	}
	return data + ", journal " + journal
}

// storage returns the registry's storage; nil if it is not accessible, or if the
// registry is a pull-through cache, whose images were pushed elsewhere.
func (r *runtime) storage() stored.Reader {
	if r.host.Storage.Type() == "inmemory" || r.host.Proxy.RemoteURL != "" {
		return nil
	}
	return storage.NewReader(context.Background(), r.host)
}

func (r *runtime) announce() (*announce.Config, error) {
	a := r.options.Announce
	if a == nil {
		return nil, nil
	}
	link, err := post.ParseLink(a.Link)
	if err != nil {
		return nil, fmt.Errorf("options.announce.link: %w", err)
	}
	text, err := a.ParseTemplate()
	if err != nil {
		return nil, fmt.Errorf("options.announce.template: %w", err)
	}
	if err := r.openPublication(); err != nil {
		return nil, err
	}
	return &announce.Config{
		Tag:         a.Match,
		Exclude:     a.Excluded,
		Collect:     a.Collect,
		Cooldown:    a.Cooldown,
		PerDay:      a.DailyLimit,
		MaxAge:      a.MaxAge,
		Retract:     a.DeletesPosts(),
		Hashtags:    a.Hashtags,
		Mention:     r.mention(),
		Retags:      a.Retags,
		Template:    text,
		Annotations: a.Annotations,
		Langs:       a.Langs,
		Card:        a.Card,
		Site:        r.site,
		Page:        r.pageOf(),
		Host:        r.options.RegistryHost(r.host),
		Reference:   r.reference(),
		Link:        r.link(link),
		DryRun:      a.DryRun,
		Posted:      r.appview.Posted,
	}, nil
}

// link returns the function that returns the address that a post links to: that of the
// option, or the page of the version; nil if there is none.
func (r *runtime) link(option *post.LinkTemplate) func(repository, tag, digest string) string {
	if r.options.Announce.Link == "" {
		return r.pageOf()
	}
	return func(repository, tag, digest string) string {
		address, err := option.Address(post.Image{Repository: repository, Tag: tag, Digest: digest})
		if err != nil {
			r.log.Warn("post without a link", "repository", repository, "error", err)
		}
		return address
	}
}

// reference returns the function that names an image as clients pull it; nil if the host
// of the registry is not known.
func (r *runtime) reference() func(repository, tag string) string {
	host := r.options.RegistryHost(r.host)
	if host == "" {
		return nil
	}
	return func(repository, tag string) string { return host + "/" + repository + ":" + tag }
}

func (r *runtime) openAPI() error {
	if err := r.options.API.CheckToken(); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be created later
		return err
	}
	cfg := stats.Config{
		Source:    r.counts(),
		Pushes:    r.pushes,
		Health:    r.health,
		Visible:   r.notifier.Public,
		TokenFile: r.options.API.TokenFile,
		Now:       clock.Now,
		Logger:    r.log,
	}
	if r.redis != nil {
		cfg.Fallback = r.counter
	}
	r.mounts = append(r.mounts, mount{stats.Prefix, stats.New(cfg)})
	r.mounts = append(r.mounts, probes(func() bool { return !r.journalDiskFull() })...)
	return nil
}

// counts returns the counts that are shown and published: those of this registry or,
// with Redis, the sum.
func (r *runtime) counts() counts.Source {
	if r.redis == nil {
		return r.counter
	}
	return &rediscounts.Sum{DB: r.redis, Check: r.counter.Check, Now: clock.Now}
}

func (r *runtime) pushes(_ context.Context, limit int, all bool) ([]stats.Push, error) {
	return r.notifier.Pushes(limit, all)
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
