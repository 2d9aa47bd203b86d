package counter

import (
	"testing"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// A pull that an unlisted account reports is counted only for an image that was pushed, and
// for a tag only if it refers to the image. It creates no other rows.
func TestUnlisted(t *testing.T) {
	t.Parallel()
	push := func(tag string, d int) counts.Fact {
		return counts.Fact{Repository: "x", Tag: tag, Digest: digest(d), Class: counts.Push, Time: noon}
	}
	pull := func(repository, tag string, d int) counts.Fact {
		return counts.Fact{Repository: repository, Tag: tag, Digest: digest(d), Class: counts.Pull, Time: noon, Unlisted: true}
	}
	known := func(f counts.Fact) counts.Fact { f.Known = true; return f }
	untag := counts.Fact{Repository: "x", Tag: "v1", Deleted: true, Time: noon}
	for name, tc := range map[string]struct {
		facts       []counts.Fact
		pulls, tags int64 // of x, and of its tag v1
	}{
		"tagged":                            {[]counts.Fact{push("v1", 1), pull("x", "v1", 1)}, 1, 1},
		"by digest":                         {[]counts.Fact{push("v1", 1), pull("x", "", 1)}, 1, 0},
		"with an invented tag":              {[]counts.Fact{push("v1", 1), pull("x", "v2", 1)}, 1, 0},
		"with the tag of another digest":    {[]counts.Fact{push("v1", 1), push("v2", 2), pull("x", "v1", 2)}, 1, 0},
		"before the push":                   {[]counts.Fact{pull("x", "v1", 1), push("v1", 1)}, 0, 0},
		"of an invented digest":             {[]counts.Fact{push("v1", 1), pull("x", "v1", 2)}, 0, 0},
		"of an invented repository":         {[]counts.Fact{push("v1", 1), pull("y", "v1", 1)}, 0, 0},
		"after the tag has moved":           {[]counts.Fact{push("v1", 1), push("v1", 2), pull("x", "v1", 1)}, 0, 0},
		"after the tag was deleted":         {[]counts.Fact{push("v1", 1), untag, pull("x", "v1", 1)}, 0, 0},
		"of an image that the caller knows": {[]counts.Fact{push("v1", 1), known(pull("x", "v2", 2))}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReplica(t, "aaaa", nil)
			for _, reopen := range []bool{false, true} { // also across folds
				if err := r.c.Fold("aaaa", 0, 10, tc.facts[:1], nil); err != nil {
					t.Fatal(err)
				}
				if reopen {
					r.reopen()
				}
			}
			if err := r.c.Fold("aaaa", 0, 20, tc.facts[1:], nil); err != nil {
				t.Fatal(err)
			}
			totals, tags, _, err := r.c.Repository(t.Context(), "x")
			if err != nil || totals.Counts[counts.Pull] != tc.pulls || tags["v1"][counts.Pull] != tc.tags {
				t.Errorf("got %v and %v, %v; want %d and %d pulls", totals.Counts, tags, err, tc.pulls, tc.tags)
			}
			if _, found := tags["v2"]; found && tags["v2"][counts.Push] == 0 {
				t.Errorf("there is a row of an invented tag: %v", tags)
			}
			if all, err := r.c.Repositories(t.Context()); err != nil || len(all) != 1 {
				t.Errorf("got %v, %v, want one repository", all, err)
			}
		})
	}
}
