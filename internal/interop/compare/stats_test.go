package compare

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	account "github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// publishStats publishes stats records to both servers with the client of other PDSs.
func publishStats(t *testing.T, theirs, ours *side) {
	for _, sd := range []*side{theirs, ours} {
		t.Run(sd.Name, func(t *testing.T) { sd.publishStats(t) })
	}
}

// backgroundAccount writes with the priority of stats records.
type backgroundAccount struct{ *account.Account }

func (a backgroundAccount) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	return a.Account.Apply(ctx, writes, swap, account.Background)
}

// totals are the counts of a registry: pulls and pushes by repository.
type totals map[string][2]int64

func (c totals) Repositories(context.Context) ([]counts.Totals, error) {
	var list []counts.Totals
	for _, name := range slices.Sorted(maps.Keys(c)) {
		list = append(list, counts.Totals{Name: name, Counts: map[counts.Class]int64{counts.Pull: c[name][0], counts.Push: c[name][1]}})
	}
	return list, nil
}

func (sd *side) publishStats(t *testing.T) {
	a := openAccount(t, sd.accountConfig(t))
	source, private := totals{"oss/a": {1, 2}, "oss/b": {3, 4}}, ""
	publisher := func() *statsrecords.Publisher {
		db, err := state.Open(state.Config{Dir: "state", FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		p, err := statsrecords.New(statsrecords.Config{
			Account: backgroundAccount{a}, Source: source, State: state.OnPebble(db), Owner: sd.DID,
			Public: func(name string) bool { return name != private },
			Fit:    func(writes []repo.Write) int { return a.Fit(writes, account.Background) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	left := a.Status().Budget.HourLeft
	p := publisher()
	for _, step := range []struct {
		change func()
		points int
		want   []string
	}{
		{func() {}, 6, []string{"oss/a 1 2", "oss/b 3 4"}},
		{func() {}, 0, []string{"oss/a 1 2", "oss/b 3 4"}},
		{func() { source["oss/b"] = [2]int64{5, 4} }, 2, []string{"oss/a 1 2", "oss/b 5 4"}},
		{func() { p = publisher() }, 0, []string{"oss/a 1 2", "oss/b 5 4"}}, // the state is lost
		{func() { source["oss/c"] = [2]int64{0, 1} }, 3, []string{"oss/a 1 2", "oss/b 5 4", "oss/c 0 1"}},
		{func() { private = "oss/a" }, 1, []string{"oss/b 5 4", "oss/c 0 1"}},
	} {
		step.change()
		if err := p.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := sd.statsRecords(t, a); !slices.Equal(got, step.want) {
			t.Errorf("got %q, want %q", got, step.want)
		}
		if spent := left - a.Status().Budget.HourLeft; spent != step.points {
			t.Errorf("%d points for %q, want %d", spent, step.want, step.points)
		}
		left -= step.points
	}
}

// statsRecords lists the stats records of an account as "repository pulls pushes".
func (sd *side) statsRecords(t *testing.T, a *account.Account) []string {
	t.Helper()
	page, _, err := a.List(t.Context(), lexicon.NSIDStats, "", 100, false)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range page {
		s, err := lexicon.ReadStats(r.Value)
		if err != nil || s.OwnerDID != sd.DID || r.RKey != lexicon.StatsKey(s.OwnerDID, s.Repository) {
			t.Errorf("record %s: %+v, %v", r.RKey, s, err)
		}
		list = append(list, fmt.Sprintf("%s %d %d", s.Repository, s.PullCount, s.PushCount))
	}
	slices.Sort(list)
	return list
}
