package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A hold that is served without a registry records what registries report, also across a
// kill. One that trusts no other account serves the account alone.
func TestHoldServeTakesNotifications(t *testing.T) {
	t.Parallel()
	a, b := newSender(t), newServer(t, settings{})
	b.startHold()
	m := newImage(2)
	if status, answer := b.notify(m, "push", a.did, a.token(t, b), "push 1"); status != http.StatusNotImplemented {
		t.Errorf("a notification that nobody may send: %d %s", status, answer)
	}
	if res, _, err := b.do("GET", "/tidings/api/v1/health", "", nil); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("the API without notifications: %v, %v", res, err)
	}
	b.stop()

	b.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, registries: [%q]", a.did))
	b.reconfigure(`public: ["oss/**"]`, fmt.Sprintf(`public: ["%s/oss/**"]`, a.did))
	b.startHold()
	const want = `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2,"postCreated":false}`
	for i := range 2 {
		if status, answer := b.notify(m, "push", a.did, a.token(t, b), "push 1"); status != http.StatusOK || answer != want {
			t.Errorf("notification %d: %d %s", i, status, answer)
		}
		b.kill()
		b.startHold()
	}
	b.waitDrained()
	name := strings.ReplaceAll(a.did, "%", "%25") + "/oss/app"
	b.checkTotals(t, map[string]int{name: 1}, 2, 0)
	if res, _, err := b.do("GET", "/v2/", "", nil); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("the registry's API: %v, %v", res, err)
	}
	b.stop()
}
