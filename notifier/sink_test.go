package notifier

import (
	"strings"
	"testing"
)

// A sink that panics for an event gives up that event only.
func TestSinkPanics(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Tag = func(tag string) bool {
		if tag == "bad" {
			panic("unexpected tag")
		}
		return true
	}
	r := newRig(t, announce)
	r.full.Store(true)
	for _, tag := range []string{"a", "b", "c", "bad", "d"} {
		r.push(image(tag, 2).as("oss/app", tag))
	}
	r.full.Store(false)
	r.drain()
	if got := len(r.posts()); got != 4 {
		t.Errorf("%d posts, want 4", got)
	}
	letters := r.letters()
	if len(letters) != 1 || letters[0].First != 4 || !strings.Contains(letters[0].Reason, "unexpected tag") {
		t.Errorf("dead letters %+v", letters)
	}
	r.reopen(nil)
	if reason, err := r.stores.Mismatch(t.Context()); reason != "" || err != nil {
		t.Errorf("the stores do not match: %s, %v", reason, err)
	}
}
