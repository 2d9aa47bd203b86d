package notifier

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/generations"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Publisher writes to the repository of the account that publishes.
type Publisher interface {
	// Apply makes the writes in one commit, all or none; they are durable when
	// it returns. After any error but *repo.WriteError it is not known whether
	// they were made: the caller reads back.
	Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error)
	// Get returns a record, or repo.ErrNotFound.
	Get(collection, rkey string) (cid.Cid, []byte, error)
	// List returns up to limit records of a collection, the highest key first,
	// with reverse the lowest first, and the cursor of the next page, "" if there
	// is none. A cursor is a record key.
	List(collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error)
	// Head is the state of the repository after the last commit.
	Head() repo.Head
}

// Config is what a Notifier is made of.
type Config struct {
	Journal     *journal.Journal
	State       state.Store
	Counter     *counter.Counter
	Rule        *counter.Classifier
	DeadLetters *DeadLetters

	Publisher Publisher                    // nil: pushes and pulls are counted, nothing is published
	Account   string                       // DID of the repository that Publisher writes to
	Owner     string                       // DID that images belong to; empty: Account
	Public    func(repository string) bool // the only gate to what is published; nil: nothing is public
	Announce  *Announce                    // nil: no posts

	// Storage is the registry's; nil: it can't be asked, events are believed, and
	// a push that a crash interrupted is taken not to have happened.
	Storage Storage

	// Gate names what Public and Owner are made of; empty: that is not looked at. With
	// another name than at the last start, Storage is compared with what is recorded.
	Gate string
	// Folder names the folder that the stores are in, as long as nobody copies it
	// or puts another in its place; empty: that is not looked at. Stores in a folder
	// with another name than at the last start are compared with Storage.
	Folder string

	// AccountFolder names in the same way the folder of Publisher's repository. If
	// it is another than at the last start, the ledger is made anew.
	AccountFolder string

	Space   func() error         // an error while the disk has too little room to write on; nil: never
	Now     func() time.Time     // nil: time.Now
	Elapsed func() time.Duration // what Now is compared with, to see it jump; nil: the system's
	Backoff time.Duration        // first wait after a temporary error, doubled up to a minute; 0: 1 s
	Linger  time.Duration        // how long a sink that is up to date lets events gather; 0: 500 ms
	Metrics *Metrics             // nil: none
	Logger  *slog.Logger         // nil: silent
}

// A Notifier records what happens in the registry and carries it to the sinks.
type Notifier struct {
	Config
	log    *slog.Logger
	clock  *clock
	ledger *ledger.Ledger
	recent recent
	sinks  []sink

	calls    calls
	answers  chan struct{} // those that wait
	results  bell          // rings when a sink has done something
	released bell          // rings when an intent is left to storage

	settling     sync.Mutex // one at a time settles intents
	firstPending pendingEvents
	publicPushes publicPushes
	blobSizes    blobSizes

	proving sync.Mutex // one at a time looks whether the stores belong together
	proven  atomic.Bool
}

// New returns a notifier that records at once; Run carries events to the
// sinks.
func New(cfg Config) (*Notifier, error) {
	if cfg.Elapsed == nil {
		cfg.Elapsed = elapsed
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Public == nil {
		cfg.Public = func(string) bool { return false }
	}
	cfg.Public = gated(cfg.Public)
	if cfg.Space == nil {
		cfg.Space = func() error { return nil }
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = time.Second
	}
	if cfg.Owner == "" {
		cfg.Owner = cfg.Account
	}
	if cfg.Linger == 0 {
		cfg.Linger = 500 * time.Millisecond
	}
	n := &Notifier{
		Config: cfg,
		log:    cfg.Logger.With("component", "notifier"),
		ledger: ledger.New(cfg.State),

		answers:   make(chan struct{}, maxAnswers),
		blobSizes: blobSizes{sizes: generations.New[string, int64](rememberedSizes)},
	}
	if cfg.Storage != nil {
		n.Storage = &patient{Storage: cfg.Storage, log: n.log}
	}
	n.calls.n = n
	n.clock = newClock(cfg.Now, cfg.Elapsed, cfg.Journal.ClockID(), int64(cfg.Journal.Mark()), n.log)
	n.DeadLetters.measure(n.Metrics)
	if err := n.DeadLetters.show(n.Public); err != nil {
		return nil, err
	}
	if cfg.Publisher != nil {
		n.sinks = append(n.sinks, &recordSink{n})
		if cfg.Announce != nil {
			if err := cfg.Announce.validate(); err != nil {
				return nil, fmt.Errorf("announce: %w", err)
			}
			n.sinks = append(n.sinks, &announceSink{n: n, Announce: *cfg.Announce})
		}
	}
	if err := n.migrate(); err != nil {
		return nil, err
	}
	if err := n.publicPushes.load(n); err != nil {
		return nil, err
	}
	if err := n.register(); err != nil {
		return nil, err
	}
	return n, nil
}

// register makes the cursors known that hold events back in the journal, and
// forgets those of sinks that are not configured any more.
func (n *Notifier) register() error {
	wanted := map[string]bool{counterSink: true}
	for _, s := range n.sinks {
		wanted[s.name()] = true
		if err := n.Journal.Register(journal.Pushes, s.name()); err != nil {
			return err
		}
	}
	if err := n.followRecords(); err != nil {
		return err
	}
	for _, s := range counted {
		if err := n.Journal.Register(s, counterSink); err != nil {
			return err
		}
		// A journal that is behind the numbers has lost events that are in them.
		latest := n.Counter.Latest(uint8(s))
		if err := n.Journal.Follow(s, latest); err != nil {
			return err
		}
		if err := n.Journal.Passed(s, counterSink, latest); err != nil {
			return err
		}
	}
	if err := n.noteNames(); err != nil { // once the journal has the id that it keeps
		return err
	}
	for name := range n.Journal.Cursors(journal.Pushes) {
		if wanted[name] {
			continue
		}
		n.log.Warn("a sink is not configured any more; its pending events are dropped", "sink", name)
		if err := n.Journal.Forget(journal.Pushes, name); err != nil {
			return err
		}
	}
	return nil
}

// Run carries events to the sinks until ctx ends, and returns once each has
// finished what it held.
func (n *Notifier) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, s := range n.sinks {
		g.Go(func() error { return n.carry(ctx, s) })
	}
	for _, s := range counted {
		g.Go(func() error { return n.count(ctx, s) })
	}
	g.Go(func() error { return n.settle(ctx) })
	if n.Storage != nil {
		g.Go(func() error { return n.describeRows(ctx) })
	}
	if n.Publisher != nil && n.Storage != nil {
		g.Go(func() error { return n.reconcile(ctx) })
	}
	return g.Wait()
}
