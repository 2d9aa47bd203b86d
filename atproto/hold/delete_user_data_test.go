package hold

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

const deletion = lexicon.NSIDDeleteUserData

// deleter is the UserData of a hold with records of strangerDID.
type deleter struct {
	dataOf
	mu       sync.Mutex
	requests []Deletion
	fail     error
	entered  chan struct{} // receives when a call begins; nil: it does not wait
	leave    chan struct{}
}

func (d *deleter) DeleteData(_ context.Context, request Deletion) (lexicon.DeletedUserData, error) {
	if d.entered != nil {
		d.entered <- struct{}{}
		<-d.leave
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return lexicon.DeletedUserData{}, d.fail
	}
	d.requests = append(d.requests, request)
	return lexicon.DeletedUserData{Success: true, LayersDeleted: 12, StatsDeleted: 3}, nil
}

func deletable(t *testing.T) (*testHold, *deleter, func(did string, method ...string) string) {
	t.Helper()
	d := &deleter{dataOf: strangerDID}
	h, _, token := notifiable(t, func(cfg *Config) { cfg.UserData = d })
	return h, d, token
}

// The answer is valid by the schema, and the notifier gets the account of the token.
func TestDeleteUserData(t *testing.T) {
	t.Parallel()
	h, d, token := deletable(t)
	for i, did := range []string{strangerDID, ownerDID, registryDID} {
		h.Token = token(did, deletion)
		resp, raw := h.Do(h.Request("POST", "/xrpc/"+deletion, `{}`))
		if err := lexicon.Output(deletion, raw); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: got %d %s, %v", did, resp.StatusCode, raw, err)
		}
		if want := `{"success":true,"crewDeleted":false,"layersDeleted":12,"statsDeleted":3}`; string(raw) != want {
			t.Errorf("got %s, want %s", raw, want)
		}
		if got := d.requests[i]; got.DID != did || got.Unlisted != (did == strangerDID) || got.Token == "" {
			t.Errorf("%s: request %+v", did, got)
		}
	}
}

// Each refusal has the published name, and nothing is deleted.
func TestDeleteUserDataErrors(t *testing.T) {
	t.Parallel()
	h, d, token := deletable(t)
	used := token(strangerDID, deletion)
	h.Token = used
	h.Want("POST", deletion, `{}`, 200, "", "")
	for _, tc := range []struct {
		name, token, verb, body string
		fail                    error
		status                  int
		err, message            string
	}{
		{"no token", "", "POST", `{}`, nil, 401, "AuthRequired", "Authentication Required"},
		{"no JWT", "x", "POST", `{}`, nil, 401, "AuthRequired", "poorly formatted"},
		{"a token of another method", token(strangerDID, export), "POST", `{}`, nil, 401, "AuthRequired", "must match: " + deletion},
		{"a used token", used, "POST", `{}`, nil, 401, "AuthRequired", "used before"},
		{"a token that was used before a crash", token(strangerDID, deletion), "POST", `{}`, auth.ErrTokenReplay, 401, "AuthRequired", "used before"},
		{"GET", token(strangerDID, deletion), "GET", "", nil, 400, "InvalidRequest", "expected POST"},
		{"no JSON", token(strangerDID, deletion), "POST", `{`, nil, 400, "SyntaxError", ""},
		{"no object", token(strangerDID, deletion), "POST", `[]`, nil, 400, "InvalidRequest", ""},
		{"a full disk", token(strangerDID, deletion), "POST", `{}`, errors.New("no space on /data"), 503, "DeletionFailed", "could not be recorded"},
	} {
		d.fail, h.Token = tc.fail, tc.token
		status, answer := h.Call(tc.verb, deletion, tc.body)
		message, _ := answer["message"].(string)
		if status != tc.status || answer["error"] != tc.err || !strings.Contains(message, tc.message) || strings.Contains(message, "/data") {
			t.Errorf("%s: got %d %v", tc.name, status, answer)
		}
	}
	if len(d.requests) != 1 {
		t.Errorf("%d deletions", len(d.requests))
	}
	without, _, token := notifiable(t)
	without.Token = token(ownerDID, deletion)
	without.Want("POST", deletion, `{}`, 501, "MethodNotImplemented", "")
}

// An account has one call at a time, and all have few.
func TestUserDeletionSlots(t *testing.T) {
	t.Parallel()
	h, d, token := deletable(t)
	d.entered, d.leave = make(chan struct{}), make(chan struct{})
	first := make(chan int)
	request := h.Request("POST", "/xrpc/"+deletion, `{}`)
	request.Header.Set("Authorization", "Bearer "+token(strangerDID, deletion))
	go func() {
		resp, _ := h.Do(request)
		first <- resp.StatusCode
	}()
	<-d.entered
	h.Token = token(strangerDID, deletion)
	h.Want("POST", deletion, `{}`, 429, "RateLimitExceeded", "")
	close(d.leave)
	if status := <-first; status != 200 {
		t.Errorf("the first call: %d", status)
	}
	for i := range maxUserDeletions {
		if !h.server.userDeletions.acquire(string(rune('a'+i)), maxUserDeletions) {
			t.Fatal("no slot")
		}
	}
	d.entered = nil
	h.Token = token(strangerDID, deletion)
	h.Want("POST", deletion, `{}`, 429, "RateLimitExceeded", "")
}
