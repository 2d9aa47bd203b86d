package notifier

import (
	"testing"

	"github.com/tidings-dev/tidings/notifier/quota"
)

// The answer has the usage of records only, and the limit if there is one.
func TestQuotaAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.tiers = quota.Tiers{Limits: map[string]int64{"free": 5000}, Owners: map[string]string{alice: "free"}}
	r.reopen(nil)
	a := withLayers("a", map[string]int64{"os": 1000, "a": 1})
	r.push(a.listed())
	r.push(withLayers("b", map[string]int64{"b": 7}).as("secret/app", "").listed())
	r.notify(notificationOf(a, alice))
	r.drain()
	for did, want := range map[string]string{
		owner:             `{"userDid":"did:web:hold.test","uniqueBlobs":2,"totalSize":1001}`,
		alice:             `{"userDid":"did:plc:alice","uniqueBlobs":2,"totalSize":1001,"limit":5000,"tier":"free"}`,
		"did:web:unknown": `{"userDid":"did:web:unknown","uniqueBlobs":0,"totalSize":0}`,
	} {
		got, err := r.Quota(did)
		if err != nil || asJSON(t, got) != want {
			t.Errorf("got %s, %v, want %s", asJSON(t, got), err, want)
		}
	}
}
