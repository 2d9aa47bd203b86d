package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// Config configures New. Fields without a comment are those of the notifier.
type Config struct {
	Journal *journal.Journal
	Clock   *event.Clock
	State   state.Store
	Counter *counter.Counter
	Ledger  *ledger.Ledger
	Usage   *usage.Table
	Quota   *quota.Gate
	Parked  *parked.Store
	Posts   *posted.History
	Purged  *purged.Store

	Account *delivery.Repo                  // nil: nothing is published
	Storage *stored.Checked                 // nil: storage cannot be asked
	Confirm func(ctx context.Context) error // confirms the batches that a crash interrupted

	Owner   string                                                    // of the repositories without a rule
	OwnerOf func(ctx context.Context, repository string) owners.Owner // its DID is "" if it is a handle that can't be resolved
	Local   func(owner, repository string) bool                       // whether a claim in the ledger is of an image of this registry
	Public  func(repository string) bool
	Shared  bool // other programs write to the account as well

	// Versions says that versions of images that storage does not have are removed. It must not be
	// set if other registries may report images as ours, nor without the announce sink.
	Versions bool

	Options       string // identifies the options that decide what is public and whose it is; "": not known
	DataFolder    string // identifies the data folder; "": not known
	AccountFolder string // identifies the folder of the account's repo; "": not known

	Appended func(seq uint64, e *event.Event, manifest []byte) // is called with each event that was appended
	Progress *sink.Signal                                      // is sent when the stores are verified
	Space    func() error                                      // returns an error while the disk has too little free space
	Now      func() time.Time
	Log      *slog.Logger
}

// A Reconciler verifies and repairs the stores of a notifier.
type Reconciler struct {
	Config

	verifying sync.Mutex            // held while the stores are compared
	verified  atomic.Bool           // the stores are known to belong together
	failed    atomic.Pointer[error] // of the last Verify; nil: none has failed yet
}

// New returns a Reconciler, which has not verified anything yet.
func New(cfg Config) *Reconciler { return &Reconciler{Config: cfg} }
