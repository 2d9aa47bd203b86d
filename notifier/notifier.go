package notifier

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/migrate"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/recent"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// Config configures New.
type Config struct {
	Journal     *journal.Journal
	State       state.Store
	Counter     *counter.Counter
	Classifier  *classify.Classifier
	DeadLetters *deadletters.Store

	Publisher delivery.Publisher           // nil: pushes and pulls are counted, nothing is published
	Urgent    delivery.Publisher           // writes posts to the same account, before a backlog of records; nil: Publisher
	Account   string                       // DID of the account that Publisher writes to
	Shared    bool                         // other programs may write layer records and announcements to the account as well
	Owner     string                       // DID that images belong to if no rule names another owner; "": Account
	Owners    []owners.Rule                // name the owners of repositories
	Handles   Handles                      // resolves the handles of owners; nil: no handle can be resolved
	Notified  bool                         // other registries may report images
	Public    func(repository string) bool // decides what may be published; nil: nothing is public
	Announce  *announce.Config             // nil: no posts
	Quota     quota.Tiers                  // limits of owners; the zero value: none
	Remote    *RemoteConfig                // a hold that pushes are reported to, instead of Publisher; nil: none

	// Storage is the registry's. If it is nil, events are taken as they are, and a
	// push that a crash interrupted counts as one that did not happen.
	Storage stored.Reader

	// PublicOptions identifies the options that Public, Owner and Owners depend on; "": changes
	// are not detected. If it differs from that of the last start, Storage is compared
	// with the ledger.
	PublicOptions string
	// DataFolder identifies the folder that holds the stores, and changes when the
	// folder is copied or replaced; "": that is not detected. If it differs from
	// that of the last start, Storage is compared with the ledger.
	DataFolder string
	// AccountFolder identifies the folder of Publisher's repo in the same way. If it
	// differs, the ledger is rebuilt from the account's records.
	AccountFolder string

	Space   func() error         // returns an error while the disk has too little free space; nil: never
	Now     func() time.Time     // nil: time.Now
	Elapsed func() time.Duration // a monotonic clock, to detect jumps of Now; nil: the system's
	Backoff time.Duration        // first delay after a temporary error, doubled up to a minute; 0: 1 s
	Linger  time.Duration        // how long a sink without pending events lets new ones gather; 0: 500 ms
	Metrics *sink.Metrics        // nil: none

	QuotaMetrics *quota.Metrics // nil: none
	Logger       *slog.Logger   // nil: no logs
}

// setDefaults replaces zero values by what the fields say.
func (c *Config) setDefaults() {
	if c.Urgent == nil {
		c.Urgent = c.Publisher
	}
	if c.Elapsed == nil {
		c.Elapsed = event.Elapsed
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Public == nil {
		c.Public = func(string) bool { return false }
	}
	if c.Space == nil {
		c.Space = func() error { return nil }
	}
	if c.Backoff == 0 {
		c.Backoff = time.Second
	}
	if c.Owner == "" {
		c.Owner = c.Account
	}
	if c.Handles == nil {
		c.Handles = noHandles{}
	}
	if c.Linger == 0 {
		c.Linger = 500 * time.Millisecond
	}
}

// A Notifier records events and runs the sinks.
type Notifier struct {
	journal    *journal.Journal
	state      state.Store
	counter    *counter.Counter
	classifier *classify.Classifier
	ledger     *ledger.Ledger
	usage      *usage.Table
	quota      *quota.Gate
	dead       *deadletters.Store
	inbound    *inbound.Log

	account  *delivery.Repo  // nil: nothing is published
	storage  *stored.Checked // nil: storage cannot be asked
	owner    string          // of repositories without a rule
	owners   owners.Rules    // the owner of each repository
	handles  Handles
	parked   *parked.Store                // pushes whose owner is not resolved yet
	notified bool                         // other registries may report images
	public   func(repository string) bool // false for private names
	announce *announce.Sink               // nil: no posts
	posts    *posted.History
	private  *sink.PrivateImages
	purged   *purged.Store
	remote   *remote.Sink  // nil: pushes are not reported
	pulls    *remote.Pulls // nil: pulls are not reported
	stores   *reconcile.Reconciler

	space   func() error
	now     func() time.Time
	clock   *event.Clock
	runner  *runner.Runner
	linger  time.Duration
	metrics *sink.Metrics
	log     *slog.Logger

	sinks       []sink.Sink
	recent      recent.Pushes
	publicRows  pushrow.Public
	oldest      recent.Stamps
	answerSlots chan struct{} // limits the answers that wait for sinks

	before  uint64       // sequence number of the last push event of an earlier process
	answers atomic.Int64 // answers that wait for sinks
	awaited sink.Signal  // sent when one begins to wait

	progress  sink.Signal   // sent when a sink or the counter has processed events
	released  sink.Signal   // sent when an intent is released
	repairs   sink.Signal   // sent when a repair is requested
	forgotten sink.Signal   // sent when the records of an owner are deleted at its request
	lastPull  atomic.Uint64 // the last pull that was reported or passed over since the start
	recorded  atomic.Int64  // events that the records sink has processed since the start

	waitingRetries map[uint64]bool // letters of retried announcements that may wait; of the loop of that sink

	resolving sync.Mutex // held while intents are resolved
}

// New returns a notifier that records events at once. Run starts the sinks.
func New(cfg Config) (*Notifier, error) {
	cfg.setDefaults()
	n := &Notifier{
		journal: cfg.Journal, state: cfg.State, counter: cfg.Counter, classifier: cfg.Classifier, dead: cfg.DeadLetters,
		ledger: ledger.New(cfg.State),
		usage:  usage.New(cfg.State),
		before: cfg.Journal.Status(journal.Pushes).Last,

		owner:    cfg.Owner,
		owners:   owners.Rules{List: cfg.Owners, Default: cfg.Owner},
		handles:  cfg.Handles,
		notified: cfg.Notified,
		public:   sink.ExceptPrivate(cfg.Public),
		posts:    posted.NewHistory(cfg.State, cfg.Account),
		private:  sink.NewPrivateImages(cfg.State, countedBy(cfg.Counter)),
		purged:   purged.New(cfg.State),

		space: cfg.Space, now: cfg.Now, linger: cfg.Linger, metrics: cfg.Metrics,
		log: cfg.Logger.With("component", "notifier"),

		answerSlots: make(chan struct{}, maxAnswers),

		waitingRetries: map[uint64]bool{},
	}
	n.quota = quota.New(cfg.Quota, n.usage, cfg.QuotaMetrics)
	n.inbound = inbound.New(inbound.Config{
		State: n.state, Counted: countedBy(n.counter), Uncounted: n.uncountedNotifications,
		Now: func() time.Time { return n.now() },
	})
	n.clock = event.NewClock(cfg.Now, cfg.Elapsed, n.journal.ClockID(), int64(n.journal.LastOrder()), n.log)
	if cfg.Storage != nil {
		n.storage = stored.NewChecked(cfg.Storage, n.log)
	}
	var err error
	if n.runner, err = runner.New(runner.Config{State: n.state, Now: cfg.Now, Backoff: cfg.Backoff, Metrics: n.metrics, Log: n.log}); err != nil {
		return nil, err
	}
	if n.parked, err = parked.New(n.state); err != nil {
		return nil, err
	}
	if cfg.Publisher != nil {
		n.account = delivery.NewRepo(cfg.Publisher)
	}
	n.stores = n.newReconciler(&cfg)
	n.dead.SetMetrics(n.metrics)
	if err := n.dead.SetPublic(n.public); err != nil {
		return nil, err
	}
	if cfg.Publisher != nil {
		if err := n.addSinks(cfg.Publisher, cfg.Urgent, cfg.Announce); err != nil {
			return nil, err
		}
	}
	if cfg.Remote != nil {
		n.addRemote(cfg.Remote)
	}
	n.dead.SetProcessed(n.processed)
	for _, step := range []func() error{n.migrateFormat, n.loadPublicRows, n.register, n.cancelLostRetries} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// migrateFormat rewrites a state that an earlier version has written.
func (n *Notifier) migrateFormat() error {
	return migrate.Run(migrate.Config{
		State: n.state, Handled: n.journal.Cursor(journal.Pushes, records.Name), Ledger: n.ledger, Posts: n.posts,
		Reconcile: n.stores.Request, Logger: n.log,
	})
}

// addSinks adds the sinks that publish.
func (n *Notifier) addSinks(publisher, urgent delivery.Publisher, cfg *announce.Config) error {
	deps := sink.Deps{
		Account: n.account, State: n.state, Storage: n.storage, Private: n.private, Purged: n.purged, Public: n.public,
		Revision: n.stores.Revision, Metrics: n.metrics, Log: n.log,
	}
	deps.GiveUp = n.giveUpFor(records.Name)
	who := records.Owners{Resolved: n.handles.Cached, Parked: n.parked, Now: n.now, Forgotten: n.forgotten.Send}
	n.sinks = append(n.sinks, records.New(deps, who, n.ledger, n.usage, n.quota.Commit, &n.progress))
	if cfg == nil {
		return nil
	}
	deps.Account, deps.GiveUp = delivery.NewRepo(urgent), n.giveUpFor(announce.Name)
	n.recent.Annotations = cfg.Annotations
	counting := *cfg
	counting.Counted, counting.OwnerOf = n.counter.Tags, n.ownerOf
	var err error
	if n.announce, err = announce.New(deps, publisher, counting, n.posts, n.clock, n.now); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	n.sinks = append(n.sinks, n.announce)
	return nil
}

// countedBy returns the sequence number of the last push event that is counted.
func countedBy(c *counter.Counter) func() uint64 {
	return func() uint64 { return c.Latest(uint8(journal.Pushes)) }
}

// Public reports whether everybody may see a repository.
func (n *Notifier) Public(repository string) bool { return n.public(repository) }

// register registers the cursors that keep events in the journal, and removes
// those of sinks that are not configured any more.
func (n *Notifier) register() error {
	configured := map[string]bool{sink.Counters: true}
	for _, s := range n.sinks {
		configured[s.Name()] = true
		if s.Name() == remote.Name {
			continue
		}
		if err := n.journal.Register(journal.Pushes, s.Name()); err != nil {
			return err
		}
	}
	if err := n.stores.FollowState(); err != nil {
		return err
	}
	for _, s := range countedStreams {
		if err := n.journal.Register(s, sink.Counters); err != nil {
			return err
		}
		// A journal that is behind the numbers has lost events that are in them.
		latest := n.counter.Latest(uint8(s))
		if err := n.journal.AdvanceTo(s, latest); err != nil {
			return err
		}
		if err := n.journal.SetCursorLazily(s, sink.Counters, latest); err != nil {
			return err
		}
	}
	if err := n.registerRemote(); err != nil {
		return err
	}
	if err := n.stores.CompareNames(); err != nil { // after AdvanceTo, which can change the journal's id
		return err
	}
	for name := range n.journal.Cursors(journal.Pushes) {
		if configured[name] {
			continue
		}
		n.log.Warn("a sink is not configured any more; its pending events are dropped", "sink", name)
		if err := n.journal.Forget(journal.Pushes, name); err != nil {
			return err
		}
	}
	return nil
}

// Run runs the sinks until ctx ends, and returns when each has finished the batch
// that it had begun.
func (n *Notifier) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, s := range n.sinks {
		g.Go(func() error { return n.runSink(ctx, s) })
	}
	for _, s := range countedStreams {
		g.Go(func() error { return n.runCounter(ctx, s) })
	}
	g.Go(func() error { return n.runResolver(ctx) })
	g.Go(func() error { return n.loadQuota(ctx) })
	if n.storage != nil {
		g.Go(func() error { return n.runDescriber(ctx) })
	}
	if n.account != nil {
		g.Go(func() error { return n.runParked(ctx) })
	}
	if n.pulls != nil {
		g.Go(func() error { return n.runRemotePulls(ctx) })
	}
	if n.account != nil && n.storage != nil {
		g.Go(func() error { return n.runReconciler(ctx) })
	}
	return g.Wait()
}
