package compare

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// notifications keeps received notifications.
type notifications chan hold.Notification

func (n notifications) Notify(_ context.Context, notice hold.Notification) (lexicon.NotifyManifestOutput, error) {
	n <- notice
	return lexicon.NotifyManifestOutput{Success: true, Operation: notice.Operation}, nil
}

// acceptServiceToken checks that a hold accepts a service token of the reference, whose
// key is in the PLC directory.
func acceptServiceToken(t *testing.T, theirs, _ *side) {
	const host = "hold.example.com"
	dir := t.TempDir()
	at := hold.RepoConfig{Dir: filepath.Join(dir, "hold"), KeyFile: filepath.Join(dir, "hold.key"), Hostname: host, Reserve: 1}
	if _, err := hold.Init(hold.InitConfig{Dir: at.Dir, KeyFile: at.KeyFile, Hostname: host, Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	repo, id, err := hold.OpenRepo(at)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	received := make(notifications, 1)
	network, err := hold.NewNetwork(hold.NetworkConfig{Identity: id, Repo: repo})
	if err != nil {
		t.Fatal(err)
	}
	server, err := hold.New(hold.Config{
		Identity: id, Repo: repo, Network: network, PasswordFile: filepath.Join(dir, "password"),
		Notifier: received, Owners: []string{theirs.DID}, PLC: theirs.PLC,
	})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	defer web.Close()

	granted := theirs.ask(t, row{get: "com.atproto.server.getServiceAuth?aud=" + id.DID + "&lxm=" + lexicon.NSIDNotifyManifest, as: "Bearer {access}"})
	var grant struct{ Token string }
	if err := json.Unmarshal(granted.body, &grant); err != nil {
		t.Fatalf("%s: %v", granted.body, err)
	}
	body := `{"repository":"app","userDid":"` + theirs.DID + `","manifestDigest":"sha256:` + strings.Repeat("a", 64) + `","manifest":{"mediaType":"x"}}`
	for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL+"/xrpc/"+lexicon.NSIDNotifyManifest, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+grant.Token)
		res, err := theirs.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("got %s, want %d", res.Status, want)
		}
	}
	if got := <-received; got.Issuer != theirs.DID {
		t.Errorf("notification of %s, want %s", got.Issuer, theirs.DID)
	}
}
