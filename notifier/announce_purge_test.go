package notifier

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// purge purges a repository, and returns how many versions that wait it drops.
func (r *rig) purge(repository string) (waiting int) {
	r.t.Helper()
	for cursor, first := "", true; first || cursor != ""; first = false {
		found, err := r.stores.CountPublished(r.t.Context(), repository, cursor)
		if err != nil {
			r.t.Fatal(err)
		}
		waiting += found.Waiting
		cursor = found.Cursor
	}
	if _, err := r.stores.Purge(r.t.Context(), repository); err != nil {
		r.t.Fatal(err)
	}
	return waiting
}

// What was pushed to a repository before a purge is not announced after it, wherever it is;
// other repositories are not affected.
func TestPurgeDropsPending(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		perDay  int
		prepare func(r *rig, pass func(time.Duration)) // leaves v2 of oss/app and oss/other to be announced
		waiting int
		want    []string // posts, a day later
	}{
		"window": {50, func(r *rig, _ func(time.Duration)) {
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
		}, 0, []string{"oss/other:v2 was pushed"}},
		"cooldown": {50, func(r *rig, pass func(time.Duration)) {
			r.push(image("1", 1).as("oss/app", "v1"))
			r.push(image("1", 1).as("oss/other", "v1"))
			pass(time.Minute)
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			pass(time.Minute)
		}, 1, []string{"oss/other:v1 was pushed", "oss/other:v2 was pushed"}},
		"summary": {1, func(r *rig, pass func(time.Duration)) {
			r.push(image("1", 1).as("oss/first", "v1"))
			pass(time.Minute)
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			pass(time.Minute)
		}, 1, []string{"oss/first:v1 was pushed", "1 image was pushed"}},
		"outbox": {50, func(r *rig, pass func(time.Duration)) {
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			r.account.down.Store(true)
			pass(0)
		}, 0, []string{"oss/other:v2 was pushed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := policy()
			cfg.PerDay = test.perDay
			r, m := newManualRig(t, cfg)
			pass := func(d time.Duration) {
				m.Pass(d)
				r.mustStep()
			}
			failing := func(time.Duration) {
				m.Pass(time.Minute)
				if err := r.announceStep(); err == nil {
					t.Fatal("the account can be written")
				}
			}
			if name == "outbox" {
				test.prepare(r, failing)
			} else {
				pass(0)
				test.prepare(r, pass)
			}
			if got := r.purge("oss/app"); got != test.waiting {
				t.Errorf("%d versions are waiting, want %d", got, test.waiting)
			}
			r.account.down.Store(false)
			r.reopenCopy(cfg)
			pass(time.Minute)
			pass(20 * time.Minute)
			pass(24 * time.Hour)
			got := r.texts()
			for i := range got {
				if strings.HasPrefix(got[i], "1 image was pushed") {
					got[i] = "1 image was pushed"
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("posts %q, want %q", got, test.want)
			}
			r.push(image("a", 1).as("oss/app", "v2"))
			pass(time.Minute)
			pass(24 * time.Hour)
			if got := len(r.texts()); got != len(test.want)+1 {
				t.Errorf("%d posts after the next push, want %d: %q", got, len(test.want)+1, r.texts())
			}
		})
	}
}
