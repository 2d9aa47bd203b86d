package notifier

import (
	"context"
	"errors"
	"testing"
)

// has is a storage that holds the tags it was given, and has no answer for
// those of the repository "down".
type has map[string]bool

func (h has) Has(_ context.Context, repository, tag, digest string) (bool, error) {
	if repository == "down" {
		return false, errors.New("storage is down")
	}
	return h[repository+":"+tag+"@"+digest], nil
}

func TestSettle(t *testing.T) {
	t.Parallel()
	r := newRig(t, soon())
	a, b, c := image("a", 2), image("b", 3), image("c", 4)
	for _, p := range []Push{a.as("oss/app", "v1"), b.as("oss/app", "v2"), c.as("down", "v3")} {
		if _, err := r.Intend(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	r.reopen(soon())
	storage := has{"oss/app:v1@" + a.Digest: true}
	if err := r.Settle(t.Context(), storage); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if got := len(r.records()); got != 2 {
		t.Errorf("%d records, want those of the push that happened, 2", got)
	}
	if got := len(r.posts()); got != 1 {
		t.Errorf("%d posts, want 1", got)
	}

	// The one that storage gave no answer for is still open, and only it.
	r.reopen(soon())
	if err := r.Settle(t.Context(), has{"oss/app:v1@" + a.Digest: true, "oss/app:v2@" + b.Digest: true}); err != nil {
		t.Fatal(err)
	}
	if open := r.Journal.Unsettled(); len(open) != 1 {
		t.Errorf("%d pushes are open, want 1", len(open))
	}
	r.drain()
	if got := len(r.records()); got != 2 {
		t.Errorf("%d records, want 2 still", got)
	}
	totals, _, _, err := r.Counter.Repository(t.Context(), "oss/app")
	if err != nil {
		t.Fatal(err)
	}
	if got := totals.Counts["push"]; got != 1 {
		t.Errorf("%d pushes counted, want 1", got)
	}
}
