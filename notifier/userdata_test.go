package notifier

import "testing"

// An account has data while one of its public images has records.
func TestHasData(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := withLayers("a", map[string]int64{"a": 1})
	want := func(when string, accounts map[string]bool) {
		t.Helper()
		for did, want := range accounts {
			if got, err := r.HasData(did); err != nil || got != want {
				t.Errorf("%s: %s has data: %v, %v", when, did, got, err)
			}
		}
	}
	want("before", map[string]bool{owner: false, alice: false})
	r.push(withLayers("b", map[string]int64{"b": 7}).as("secret/app", "").listed())
	r.drain()
	want("after a private push", map[string]bool{owner: false})
	r.notify(notificationOf(a, alice))
	r.drain()
	want("after a notification", map[string]bool{owner: false, alice: true, "did:plc:alic": false, "": false})
}
