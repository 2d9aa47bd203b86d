package statsrecords

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/state"
)

const (
	owner = "did:web:hold.test"
	bob   = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
)

// rig is a Publisher on a real state and a real repo, with counts, a clock, and an
// account that can be made to fail.
type rig struct {
	*Publisher
	t       *testing.T
	cfg     Config
	now     time.Time
	counts  *source
	private []string // repositories that are not public
	account *account
}

func newRig(t *testing.T) *rig {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := lexicon.Encode(lexicon.Profile{DisplayName: "Hold"})
	if err != nil {
		t.Fatal(err)
	}
	first := []repo.Write{{Action: repo.Create, Collection: lexicon.NSIDProfile, RKey: "self", Record: profile}}
	r := &rig{t: t, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), counts: &source{totals: map[string]counts.Totals{}}, account: &account{}}
	account, err := repo.Init(repo.Config{Dir: filepath.Join(t.TempDir(), "hold"), DID: owner, Key: key, Reserve: 1}, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { account.Close() })
	r.account.repo = account
	r.cfg = Config{
		Account: r.account, Source: r.counts, Owner: owner, Metrics: NewMetrics(),
		Public: func(name string) bool {
			return !slices.Contains(r.private, name) && !strings.HasPrefix(name, "private:")
		},
		Now: func() time.Time { return r.now },
	}
	r.loseState()
	return r
}

// loseState begins with an empty state.
func (r *rig) loseState() {
	r.t.Helper()
	db, err := state.Open(state.Config{Dir: "state", FS: vfs.NewMem()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { db.Close() })
	r.cfg.State = state.OnPebble(db)
	r.restart()
}

// restart is what a restart of the process does.
func (r *rig) restart() {
	r.t.Helper()
	var err error
	if r.Publisher, err = New(r.cfg); err != nil {
		r.t.Fatal(err)
	}
}

// round lets an interval pass and publishes.
func (r *rig) round() {
	r.t.Helper()
	r.now = r.now.Add(DefaultInterval)
	if err := r.Round(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// want compares the records of the account, as "repository pulls pushes".
func (r *rig) want(want ...string) {
	r.t.Helper()
	var got []string
	for _, s := range r.records() {
		got = append(got, fmt.Sprintf("%s %d %d", r.nameOf(r.t.Context(), s), s.PullCount, s.PushCount))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		r.t.Errorf("the account has %q, want %q", got, want)
	}
}

// records returns the account's records, each under the key that it has to have.
func (r *rig) records() map[string]lexicon.Stats {
	r.t.Helper()
	all := map[string]lexicon.Stats{}
	page, _, err := r.account.repo.List(lexicon.NSIDStats, "", 1000, true)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, record := range page {
		s, err := lexicon.ReadStats(record.Value)
		if err != nil || record.RKey != lexicon.StatsKey(s.OwnerDID, s.Repository) {
			r.t.Errorf("record %s: %+v, %v", record.RKey, s, err)
		}
		all[record.RKey] = s
	}
	return all
}

// written returns how many writes were applied since the last call.
func (r *rig) written() int {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	n := r.account.applied
	r.account.applied = 0
	return n
}

// source is a Source of these totals.
type source struct {
	mu     sync.Mutex
	totals map[string]counts.Totals
}

func (s *source) set(name string, pulls, pushes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals[name] = counts.Totals{Name: name, Counts: map[counts.Class]int64{counts.Pull: pulls, counts.Push: pushes, counts.Head: 7}}
}

func (s *source) Repositories(context.Context) ([]counts.Totals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []counts.Totals
	for _, name := range slices.Sorted(maps.Keys(s.totals)) {
		list = append(list, s.totals[name])
	}
	return list, nil
}

// account is the repo behind a connection that can be made to fail.
type account struct {
	repo    *repo.Repo
	mu      sync.Mutex
	faults  []fault     // of the next calls of Apply
	down    bool        // no read succeeds
	spend   func(n int) // called for the writes that were applied; may be nil
	applied int         // writes
	commits int
	reads   int
}

// fault is the outcome of one call of Apply.
type fault int

const (
	lostRequest fault = iota // failed and not applied
	lostAnswer               // failed yet applied
)

var errFault = errors.New("the connection broke")

// fail sets the outcomes of the next calls of Apply.
func (a *account) fail(faults ...fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = faults
}

func (a *account) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var f *fault
	if len(a.faults) > 0 {
		f, a.faults = &a.faults[0], a.faults[1:]
	}
	if f != nil && *f == lostRequest {
		return repo.Result{}, errFault
	}
	result, err := a.repo.Apply(ctx, writes, swap)
	if err == nil {
		a.applied += len(writes)
		a.commits++
		if a.spend != nil {
			a.spend(len(writes))
		}
	}
	if err == nil && f != nil {
		return repo.Result{}, errFault
	}
	return result, err
}

func (a *account) Get(_ context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reads++; a.down {
		return cid.Undef, nil, errFault
	}
	return a.repo.Get(collection, rkey)
}

func (a *account) List(_ context.Context, collection, cursor string, limit int, reverse bool) ([]repo.Record, string, error) {
	if a.down {
		return nil, "", errFault
	}
	return a.repo.List(collection, cursor, min(limit, 2), reverse) // several pages
}
