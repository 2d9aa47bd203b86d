package notifier

import (
	"strings"
	"testing"
)

// A sink that panics at one event gives that one up, and goes on.
func TestSinkPanics(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.full.Store(true)
	for _, seed := range []string{"a", "b", "c"} {
		r.push(image(seed, 2))
	}
	bad := image("bad", 1).as("panics/app", "")
	r.push(bad)
	r.push(image("d", 2))
	public := r.public
	r.public = func(name string) bool {
		if name == bad.Repository {
			panic("nobody thought of this")
		}
		return public(name)
	}
	r.full.Store(false)
	r.drain()
	if got := len(r.records()); got != 8 {
		t.Errorf("%d records, want 8", got)
	}
	letters, err := r.DeadLetters.All()
	if err != nil || len(letters) != 1 || letters[0].First != 4 || !strings.Contains(letters[0].Reason, "nobody thought of this") {
		t.Errorf("dead letters %+v, %v", letters, err)
	}
	r.public = public
	r.reopen(nil)
	if reason, err := r.apart(); reason != "" || err != nil {
		t.Errorf("the stores are apart: %s, %v", reason, err)
	}
}
