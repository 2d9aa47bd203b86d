package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
	"github.com/tidings-dev/tidings/notifier/stored"
)

const owner = "did:web:registry.example.com"

// rig is a notifier on real stores that reports to a hold.
type rig struct {
	*notifier.Notifier
	t       *testing.T
	clock   *clocktest.Machine
	dir     string
	hold    *remotetest.Server
	key     atcrypto.PrivateKeyExportable
	storage *storage
	private bool
	pulls   bool
	hidden  atomic.Bool // no repository is public
	dead    *deadletters.Store
	counter *counter.Counter
	crashed *atomic.Bool // the process that is open
	stop    func()
}

func newRig(t *testing.T, cfg remotetest.Config) *rig {
	t.Helper()
	r := &rig{t: t, clock: clocktest.New(), dir: t.TempDir(), storage: &storage{deleted: map[string]bool{}}}
	r.clock.Real = true
	cfg.Now = r.clock.Now
	r.hold = remotetest.New(t, cfg)
	var err error
	if r.key, err = atcrypto.GeneratePrivateKeyK256(); err != nil {
		t.Fatal(err)
	}
	public, err := r.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	r.hold.Trust(owner, public)
	r.stop = func() {}
	t.Cleanup(func() { r.stop() })
	return r
}

// open opens the stores and starts the sinks.
func (r *rig) open() {
	t := r.t
	t.Helper()
	db, err := state.Open(state.Config{Dir: filepath.Join(r.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	r.crashed = &atomic.Bool{}
	store := mortal{state.OnPebble(db), r.crashed}
	r.dead = deadletters.New(store, db.Space)
	j, err := journal.Open(journal.Config{Dir: filepath.Join(r.dir, "journal"), Dropped: r.dead.Dropped})
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := counter.Open(db, counter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r.counter = numbers
	classifier, err := classify.New(classify.Config{Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	hold, err := client.New(client.Config{Hold: r.hold.DID, Tokens: client.Signed(owner, r.key, r.clock.Now), Now: r.clock.Now, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	r.Notifier, err = notifier.New(notifier.Config{
		Journal: j, State: store, Counter: numbers, Classifier: classifier, DeadLetters: r.dead,
		Account: owner, Public: func(name string) bool { return name != "secret/app" && !r.hidden.Load() }, Storage: r.storage,
		Remote: &notifier.RemoteConfig{Hold: impatient{hold, r.clock, r.crashed}, Private: r.private, Pulls: r.pulls, Interval: time.Millisecond},
		Now:    r.clock.Now, Elapsed: r.clock.Elapsed, Backoff: time.Millisecond, Linger: time.Millisecond, Logger: logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		if err := errors.Join(j.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
}

// restart ends the process and starts it again.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.open()
}

// crash is a restart after a crash: the state and the hold see nothing of what the process
// does from now on, and it gets no answers.
func (r *rig) crash() {
	r.t.Helper()
	r.crashed.Store(true)
	r.restart()
}

var errCrashed = errors.New("crashed")

// mortal is a state that a crash ends.
type mortal struct {
	state.Store
	crashed *atomic.Bool
}

func (s mortal) Commit(b *state.Batch, d state.Durability) error {
	if s.crashed.Load() {
		return errCrashed
	}
	return s.Store.Commit(b, d)
}

func logger() *slog.Logger {
	if os.Getenv("TIDINGS_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// impatient is a hold at which each pause passes at once, until the process crashes.
type impatient struct {
	*client.Hold
	clock   *clocktest.Machine
	crashed *atomic.Bool
}

func (h impatient) Notify(ctx context.Context, c client.Call) (out lexicon.NotifyManifestOutput, err error) {
	if err = errCrashed; !h.crashed.Load() {
		out, err = h.Hold.Notify(ctx, c)
	}
	if h.crashed.Load() {
		return lexicon.NotifyManifestOutput{}, errCrashed
	}
	return out, h.pass(err)
}

func (h impatient) Written(ctx context.Context, c client.Call) (client.Written, error) {
	w, err := h.Hold.Written(ctx, c)
	return w, h.pass(err)
}

func (h impatient) pass(err error) error {
	var failed *pds.Error
	if errors.As(err, &failed) {
		if wait := failed.Until.Sub(h.clock.Now()); wait > 0 {
			h.clock.Pass(wait)
		}
	}
	return err
}

// storage has each manifest that was not deleted.
type storage struct {
	stored.Reader // of nothing else
	mu            sync.Mutex
	deleted       map[string]bool
}

func (s *storage) Has(_ context.Context, _, digest string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deleted[digest], nil
}

func (s *storage) delete(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted[digest] = true
}

func (*storage) Manifest(context.Context, string, string) (string, []byte, error) {
	return "", nil, stored.ErrNotStored
}

// image returns a push of a new manifest.
func image(repository, tag string, seed string, layers int) notifier.Push {
	body := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"annotations": map[string]string{"secret": "annotation"},
		"config":      map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest.FromString(seed).String(), "size": 7},
	}
	list := []any{}
	for i := range layers {
		list = append(list, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest.FromString(fmt.Sprint(seed, i)).String(), "size": 100 + i})
	}
	body["layers"] = list
	payload, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return notifier.Push{Repository: repository, Tag: tag, Digest: digest.FromBytes(payload).String(), MediaType: body["mediaType"].(string), Payload: payload, Layers: layers}
}

func (r *rig) push(p notifier.Push) {
	r.t.Helper()
	in, err := r.Intend(context.Background(), p)
	if err == nil {
		err = in.Complete(context.Background())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) pull(p notifier.Push) {
	r.Pull(notifier.Pull{Method: "GET", Repository: p.Repository, Tag: p.Tag, Digest: p.Digest, MediaType: p.MediaType, ConfigMediaType: "application/vnd.oci.image.config.v1+json", Client: "192.0.2.1"})
}

func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if done() {
			return
		}
	}
	r.t.Fatalf("timeout waiting until %s: %+v", what, r.Health())
}

// drain waits until no event is pending.
func (r *rig) drain() {
	r.t.Helper()
	r.until("no event is pending", func() bool {
		for _, h := range r.Health() {
			if h.Depth > 0 {
				return false
			}
		}
		return true
	})
}

// drainPulls waits until so many pulls of oss/app are in the journal, which takes a while,
// and the hold has counted as many as it will: a hold without keys does so after the
// cursor has moved.
func (r *rig) drainPulls(pulled int64, counted int) {
	r.t.Helper()
	r.until("the pulls are counted", func() bool {
		numbers, _, _, err := r.counter.Repository(context.Background(), "oss/app")
		return err == nil && numbers.Counts[counts.Pull] == pulled
	})
	r.drain()
	r.until("the hold has counted them", func() bool { return r.hold.Counts(owner, "oss/app").Pulls >= counted })
}

// latest returns the newest pushes, newest first.
func (r *rig) latest() []stats.Push {
	r.t.Helper()
	pushes, err := r.Pushes(100, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return pushes
}

// inputs returns the inputs of the calls that the hold has answered with status 200, each
// key once.
func (r *rig) inputs() []lexicon.NotifyManifestInput {
	r.t.Helper()
	var all []lexicon.NotifyManifestInput
	seen := map[string]bool{}
	for _, c := range r.hold.Calls() {
		if c.Status != 200 || seen[c.Key] {
			continue
		}
		seen[c.Key] = true
		var in lexicon.NotifyManifestInput
		if err := json.Unmarshal(c.Input, &in); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, in)
	}
	return all
}

// checkLayers checks that the hold has one record for each layer.
func (r *rig) checkLayers(want int) {
	r.t.Helper()
	seen := map[string]int{}
	for _, l := range r.hold.Layers() {
		seen[l.Manifest+" "+l.Digest]++
	}
	for layer, n := range seen {
		if n > 1 {
			r.t.Errorf("%d records of %s", n, layer)
		}
	}
	if len(seen) != want {
		r.t.Errorf("%d layers have a record, want %d", len(seen), want)
	}
}
