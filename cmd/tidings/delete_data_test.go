package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// layerRecords counts the layer records of each owner in a hold.
func (s *server) layerRecords(t *testing.T) map[string]int {
	t.Helper()
	owners := map[string]int{}
	for cursor := ""; ; {
		var page struct {
			Cursor  string
			Records []struct{ Value struct{ UserDID string } }
		}
		s.json(t, "/xrpc/com.atproto.repo.listRecords?limit=100&repo="+s.did+"&collection="+lexicon.NSIDLayer+"&cursor="+cursor, &page)
		for _, r := range page.Records {
			owners[r.Value.UserDID]++
		}
		if cursor = page.Cursor; cursor == "" || len(page.Records) == 0 {
			return owners
		}
	}
}

// An account that a hold without a registry has records of has them deleted, although the
// process is killed as soon as the call is answered. Those of another account stay.
func TestDeleteUserDataKilled(t *testing.T) {
	t.Parallel()
	a, b, h := newSender(t), newSender(t), newServer(t, settings{})
	h.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, owners: [%q, %q]", a.did, b.did))
	h.reconfigure(`public: ["oss/**"]`, fmt.Sprintf(`public: ["%s/oss/**", "%s/oss/**"]`, a.did, b.did))
	h.startHold()
	for i := range 3 {
		for owner, layers := range map[*sender]int{a: 150, b: 1} {
			if status, answer := h.notify(newImage(layers), "push", owner.did, owner.token(t, h), fmt.Sprint("push ", i)); status != http.StatusOK {
				t.Fatalf("%d %s", status, answer)
			}
		}
	}
	h.waitDrained()
	if got := h.layerRecords(t); got[a.did] != 450 || got[b.did] != 3 {
		t.Fatalf("records of %v", got)
	}
	lxm := syntax.NSID(lexicon.NSIDDeleteUserData)
	token, err := auth.SignServiceAuth(syntax.DID(a.did), unescaped(h.did), time.Minute, &lxm, a.key)
	if err != nil {
		t.Fatal(err)
	}
	call := func() (int, string) {
		res, raw, err := h.do("POST", "/xrpc/"+lexicon.NSIDDeleteUserData, "application/json", []byte(`{}`), "Authorization", "Bearer "+token)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, strings.TrimSpace(string(raw))
	}
	status, answer := call()
	h.kill()
	if want := `{"success":true,"crewDeleted":false,"layersDeleted":450,"statsDeleted":`; status != http.StatusOK || !strings.HasPrefix(answer, want) {
		t.Errorf("got %d %s, want %s", status, answer, want)
	}
	h.startHold()
	if status, answer := call(); status != http.StatusUnauthorized || !strings.Contains(answer, lexicon.ErrorAuthRequired) {
		t.Errorf("the same token after the kill: %d %s", status, answer)
	}
	h.waitDrained()
	if got := h.layerRecords(t); got[a.did] != 0 || got[b.did] != 3 {
		t.Errorf("after the deletion: records of %v", got)
	}
	h.stop()
}
