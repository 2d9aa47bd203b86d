package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/batch"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

const owner = "did:web:hold.test"

// rig is a notifier on real stores, with a repo that can be made to fail.
type rig struct {
	*Notifier
	t       testing.TB
	dir     string
	key     atcrypto.PrivateKey
	repo    *repo.Repo
	account *account
	silent  bool        // nothing is published
	unpaced bool        // the repo has no subscribers, so that commits are not paced
	limit   int64       // of the journal, with segments of an eighth; 0: the default
	owner   string      // of the images; "": the account
	options string      // Config.PublicOptions
	tiers   quota.Tiers // Config.Quota
	folder  string      // Config.DataFolder

	owners     []owners.Rule
	handles    Handles // nil: no handle can be resolved
	unreported bool    // no other registry may report images

	accountFolder string // Config.AccountFolder

	manual bool     // the sinks do not run; the test calls announceStep
	crash  *crasher // ends the process in the middle; nil: never

	updates updates // of the account's records, since the beginning

	prepare   func(*account)                              // called before the sinks start; nil: nothing
	publisher func(delivery.Publisher) delivery.Publisher // wraps that of the account, which still writes posts; nil: none

	storage *memStorage // nil: it can't be asked
	public  func(string) bool
	now     func() time.Time
	elapsed func() time.Duration
	full    atomic.Bool // the disk has no free space, and the sinks pause
	stop    func()
	// stopSinks ends the sinks and leaves the stores open.
	stopSinks func()
}

// account is the repo behind a connection that can be made to fail.
type account struct {
	*repo.Repo
	mu     sync.Mutex
	down   atomic.Bool // each call fails and is not applied
	faults []fault
	tried  atomic.Int64 // calls of space, one before each try of a sink

	unread     atomic.Bool   // no record can be read
	postFaults []fault       // of calls that write posts, before faults
	lostPosts  []repo.Write  // of the last of these calls
	latePosts  []repo.Write  // applied before the next call that writes posts
	uploads    []uploadFault // of the next calls of Upload
	uploaded   int           // calls of Upload
	updates    *updates      // that were applied

	refusedUpdate string // like refused, for updates
	refused       string // a call with a write of this collection is refused; "": none
	failing       string // a call with a write of this collection fails; "": none
}

// fault is the outcome of one call of Apply.
type fault int

const (
	lostRequest fault = iota // failed and not applied
	lostAnswer               // failed yet applied
	noFault
)

var errFault = errors.New("the connection broke")

func (a *account) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down.Load() {
		return repo.Result{}, errFault
	}
	if slices.ContainsFunc(writes, func(w repo.Write) bool { return w.Collection == a.failing }) {
		return repo.Result{}, errFault
	}
	refused := func(w repo.Write) bool {
		return w.Collection == a.refused || w.Collection == a.refusedUpdate && w.Action == repo.Update
	}
	if i := slices.IndexFunc(writes, refused); i >= 0 {
		return repo.Result{}, &repo.WriteError{Index: i, Path: writes[i].Collection + "/" + writes[i].RKey, Err: errors.New("refused")}
	}
	faults := &a.faults
	if slices.ContainsFunc(writes, func(w repo.Write) bool { return w.Collection == lexicon.NSIDPost }) {
		if err := a.applyLate(ctx); err != nil {
			return repo.Result{}, err
		}
		if len(a.postFaults) > 0 {
			faults, a.lostPosts = &a.postFaults, writes
		}
	}
	f := noFault
	if len(*faults) > 0 {
		f, *faults = (*faults)[0], (*faults)[1:]
	}
	if f == lostRequest {
		return repo.Result{}, errFault
	}
	result, err := a.Repo.Apply(ctx, writes, swap)
	if err == nil {
		a.updates.add(writes)
	}
	if err == nil && f == lostAnswer {
		return repo.Result{}, errFault
	}
	return result, err
}

// updates counts the updates of records by their paths.
type updates struct {
	mu    sync.Mutex
	times map[string]int
}

func (u *updates) add(writes []repo.Write) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range writes {
		if w.Action != repo.Update {
			continue
		}
		if u.times == nil {
			u.times = map[string]int{}
		}
		u.times[w.Collection+"/"+w.RKey]++
	}
}

// of returns how often a record was updated.
func (u *updates) of(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.times[path]
}

// applyLate applies latePosts. The caller must hold mu.
func (a *account) applyLate(ctx context.Context) error {
	late := a.latePosts
	if a.latePosts = nil; late == nil {
		return nil
	}
	_, err := a.Repo.Apply(ctx, late, nil)
	return err
}

func (a *account) Get(collection, rkey string) (cid.Cid, []byte, error) {
	if a.unread.Load() {
		return cid.Undef, nil, errFault
	}
	return a.Repo.Get(collection, rkey)
}

func (a *account) fail(faults ...fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, faults...)
}

// heal ends all faults.
func (a *account) heal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = nil
}

// failAfter lets some calls succeed and then loses requests.
func (a *account) failAfter(good, lost int) {
	a.fail(slices.Repeat([]fault{noFault}, good)...)
	a.fail(slices.Repeat([]fault{lostRequest}, lost)...)
}

// newBenchRig is a rig without sinks.
func newBenchRig(b *testing.B) *rig {
	r := newRig(b, nil)
	r.stopSinks()
	return r
}

func newRig(t testing.TB, announce *announce.Config) *rig {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), key: key, storage: newMemStorage()}
	r.public = func(name string) bool { return name != "secret/app" && name != bob+"/secret/app" }
	r.initRepo()
	r.open(announce)
	t.Cleanup(func() { r.stop() })
	return r
}

// initRepo creates an empty repo.
func (r *rig) initRepo() {
	r.t.Helper()
	first, err := repo.Init(repo.Config{Dir: filepath.Join(r.dir, "hold"), DID: owner, Key: r.key, Reserve: 1}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// open opens the stores in the folder and starts the sinks.
func (r *rig) open(announce *announce.Config) {
	t := r.t
	t.Helper()
	db, err := state.Open(state.Config{Dir: filepath.Join(r.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	dead := deadletters.New(state.OnPebble(db), db.Space)
	j, err := journal.Open(journal.Config{Dir: filepath.Join(r.dir, "journal"), Dropped: dead.Dropped, Limit: r.limit, SegmentSize: r.limit / 8})
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := counter.Open(db, counter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	classifier, err := classify.New(classify.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if r.repo, err = repo.Open(repo.Config{Dir: filepath.Join(r.dir, "hold"), DID: owner, Key: r.key, Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	r.account = &account{Repo: r.repo, updates: &r.updates}
	if r.prepare != nil {
		r.prepare(r.account)
	}
	cfg := Config{
		Owner: r.owner, DataFolder: r.folder, AccountFolder: r.accountFolder, PublicOptions: r.options,
		Owners: r.owners, Handles: r.handles, Notified: !r.unreported,
		Quota:   r.tiers,
		Metrics: sink.NewMetrics(),
		Journal: j, State: state.OnPebble(db), Counter: numbers, Classifier: classifier, DeadLetters: dead,
		Publisher: delivery.OnEmbedded(r.account), Account: owner, Announce: announce,
		Public: func(name string) bool { return r.public(name) },
		Space:  r.space, Now: r.now, Elapsed: r.elapsed,
		Logger:  testLogger(),
		Backoff: time.Millisecond, Linger: time.Millisecond,
	}
	if announce != nil && announce.Page != nil {
		opened := *announce
		opened.Site = openSite(t, cfg.State)
		cfg.Announce = &opened
	}
	if r.silent {
		cfg.Publisher = nil
	}
	if r.unpaced {
		cfg.Publisher = delivery.OnEmbedded(batch.New(r.repo, func() time.Duration { return 0 }))
	}
	if r.publisher != nil {
		cfg.Publisher, cfg.Urgent = r.publisher(cfg.Publisher), cfg.Publisher
	}
	if r.storage != nil {
		cfg.Storage = r.storage
	}
	if r.crash != nil {
		cfg.State = crashStore{cfg.State, r.crash}
		cfg.Publisher = crashPublisher{cfg.Publisher, r.crash}
		cfg.Urgent = cfg.Publisher
	}
	if r.Notifier, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	r.stopSinks = func() {
		cancel()
		<-ended
	}
	r.stop = func() {
		once.Do(func() {
			r.stopSinks()
			for _, c := range []interface{ Close() error }{r.repo, j, db} {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if r.manual {
		close(ended)
		return
	}
	go func() { defer close(ended); r.Run(ctx) }()
}

func (r *rig) space() error {
	r.account.tried.Add(1)
	if r.full.Load() {
		return store.ErrNoSpace
	}
	return nil
}

func (r *rig) reopen(announce *announce.Config) {
	r.t.Helper()
	r.stop()
	r.open(announce)
}

// image is a manifest with a number of layers, which depends on the seed.
func image(seed string, layers int) Push {
	m := map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        descriptor("application/vnd.oci.image.config.v1+json", seed+" config", 100),
	}
	var list []any
	for i := range layers {
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar+gzip", fmt.Sprint(seed, " layer ", i), 1000+i))
	}
	m["layers"] = list
	payload, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return Push{Repository: "oss/app", Digest: digest.FromBytes(payload).String(), MediaType: m["mediaType"].(string), Payload: payload, Layers: layers}
}

func descriptor(mediaType, content string, size int) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest.FromString(content).String(), "size": size}
}

func (p Push) as(repository, tag string) Push {
	p.Repository, p.Tag = repository, tag
	return p
}

// push does what the registry does for a push.
func (r *rig) push(p Push) {
	r.t.Helper()
	in := r.intend(p)
	r.storage.put(p)
	r.complete(in)
}

func (r *rig) complete(in *Intent) {
	r.t.Helper()
	if err := in.Complete(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// event reads an event from the journal.
func (r *rig) event(seq uint64) *event.Event {
	r.t.Helper()
	entries, err := r.journal.Read(journal.Pushes, seq-1, 1, 1)
	if err != nil || len(entries) != 1 {
		r.t.Fatalf("event %d: %v, %v", seq, entries, err)
	}
	e, err := event.Decode(entries[0].Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// apply writes to the repo as another client.
func (r *rig) apply(writes ...repo.Write) {
	r.t.Helper()
	if _, err := r.repo.Apply(context.Background(), writes, nil); err != nil {
		r.t.Fatal(err)
	}
}

// consistent checks that storage, ledger and account agree, ignoring differences of some
// kinds.
func (r *rig) consistent(ignored ...string) {
	r.t.Helper()
	err := r.stores.Check(context.Background(), nil, func(d reconcile.Difference) error {
		if !slices.Contains(ignored, d.Kind) {
			r.t.Errorf("difference: %+v", d)
		}
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
	if !slices.Contains(ignored, reconcile.Record) {
		r.exactUsage()
	}
}

// exactUsage checks that the usage of all owners is that of a recount.
func (r *rig) exactUsage() {
	r.t.Helper()
	err := r.stores.RecountUsage(context.Background(), true, nil, func(d usage.Difference) error {
		r.t.Errorf("usage: %s", d)
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
}

func (r *rig) intend(p Push) *Intent {
	r.t.Helper()
	in, err := r.Intend(context.Background(), p)
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

func (r *rig) intendDelete(p Push) *Intent {
	r.t.Helper()
	in, err := r.IntendDelete(context.Background(), Delete{Repository: p.Repository, Digest: p.Digest})
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

// untag deletes the tag that p was pushed under.
func (r *rig) untag(p Push) {
	r.t.Helper()
	in, err := r.IntendDelete(context.Background(), Delete{Repository: p.Repository, Digest: p.Digest, Tag: p.Tag})
	if err != nil {
		r.t.Fatal(err)
	}
	r.storage.untag(p)
	r.complete(in)
}

func (r *rig) delete(p Push) {
	r.t.Helper()
	in := r.intendDelete(p)
	r.storage.remove(p)
	r.complete(in)
}

// drain waits until no sink has pending events.
func (r *rig) drain() {
	r.t.Helper()
	r.until("no sink has pending events", func() bool {
		for _, h := range r.Health() {
			if h.Depth > 0 {
				return false
			}
		}
		return true
	})
}

func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if done() {
			return
		}
	}
	r.t.Fatalf("timeout waiting until %s: %+v", what, r.Health())
}

// records lists the layer records as "manifest digest/layer digest".
func (r *rig) records() map[string]int {
	r.t.Helper()
	found := map[string]int{}
	for _, rec := range r.list(lexicon.NSIDLayer) {
		found[rec["manifest"].(string)+" "+rec["digest"].(string)]++
	}
	return found
}

func (r *rig) posts() []map[string]any {
	r.t.Helper()
	return r.list(lexicon.NSIDPost)
}

func (r *rig) list(collection string) []map[string]any {
	r.t.Helper()
	var all []map[string]any
	cursor := ""
	for {
		records, next, err := r.repo.List(collection, cursor, 100, true)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, rec := range records {
			raw, err := lexicon.ToJSON(rec.Value)
			if err != nil {
				r.t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(raw, &m); err != nil {
				r.t.Fatal(err)
			}
			m["rkey"] = rec.RKey
			all = append(all, m)
		}
		if cursor = next; cursor == "" {
			return all
		}
	}
}

func testLogger() *slog.Logger {
	if os.Getenv("TIDINGS_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// letters returns the dead letters of all sinks.
func (r *rig) letters() (all []deadletters.Letter) {
	r.t.Helper()
	err := r.state.Scan(state.Prefix(state.DeadLetters), func(_, val []byte) error {
		var l deadletters.Letter
		err := json.Unmarshal(val, &l)
		all = append(all, l)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}
