package middleware

import (
	"context"
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"

	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/stats"
)

const (
	ownDID   = "did:web:registry.example.com"
	aliceDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	bobDID   = "did:web:bob.example.net"

	// The password of every user is pw.
	pwHash = "$2a$04$iq45F4aPEVWNubfqNX20Xua321rFy0CiKkdMYcaOP3l5Iq8spXXZ2"
)

// withUsers adds users to a configuration, whose password is pw.
func withUsers(t *testing.T, users ...string) func(*configuration.Configuration) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(strings.Join(users, ":"+pwHash+"\n")+":"+pwHash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *configuration.Configuration) {
		c.Auth = configuration.Auth{"htpasswd": {"realm": "registry", "path": file}}
	}
}

// as sends requests of a user.
func (r *testRegistry) as(user string) *testRegistry {
	login := *r
	login.client = &http.Client{Transport: asUser{user, r.client.Transport}}
	return &login
}

type asUser struct {
	user  string
	inner http.RoundTripper
}

func (a asUser) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.user != "" {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(a.user+":pw")))
	}
	return a.inner.RoundTrip(r)
}

// stored lists the files in the registry's storage.
func (r *testRegistry) stored() (files []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.config.Storage["filesystem"]["rootdirectory"].(string), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// A push by a user who is not the owner is refused before anything is stored: the upload
// of its first blob as well as its manifest.
func TestStrict(t *testing.T) {
	t.Parallel()
	var resolved atomic.Bool
	access := &owners.Access{
		Rules: &owners.Rules{Default: ownDID, List: []owners.Rule{
			{Repositories: []string{"team/**"}, Owner: owners.Parse(aliceDID)},
			{FirstComponent: true},
		}},
		Accounts: map[string]string{"op": ownDID, "alice": aliceDID, "bob": bobDID},
		Resolved: func(handle string) (string, bool) {
			return map[string]string{"bob.example.com": bobDID}[handle], handle == "bob.example.com" && resolved.Load()
		},
	}
	config := configure(t, observedYAML, withUsers(t, "op", "alice", "bob", "carol"))
	rec := &fakeRecorder{alias: map[string]string{}}
	h, err := start(config, parts{recorder: rec, permit: func(repository, actor string) error { return refusal(access.Check(repository, actor)) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	r := serve(t, config, h.Wrap, rec)
	made := serveObserved(t, nil, nil).image("x", "IMAGE", v1.MediaTypeImageManifest) // in another registry

	refused := func(user, repository string, status int, code, message string) {
		t.Helper()
		rec.take()
		for what, a := range map[string]answer{
			"upload":   r.as(user).do("POST", "/v2/"+repository+"/blobs/uploads/", nil),
			"mount":    r.as(user).do("POST", "/v2/"+repository+"/blobs/uploads/?from=other&mount="+made.digest, nil),
			"manifest": r.as(user).push(repository, "v1", made),
		} {
			gotCode, gotMessage := decodeError(t, a)
			if a.status != status || gotCode != code || !strings.Contains(gotMessage, message) {
				t.Errorf("%s by %s: %d %s, want %d %s: %s", what, user, a.status, a.body, status, code, message)
			}
			if after := a.header.Get("Retry-After"); (after == "10") != (status == 503) {
				t.Errorf("%s by %s: Retry-After %q", what, user, after)
			}
			if a.header.Get("Location") != "" || a.header.Get("Docker-Upload-UUID") != "" {
				t.Errorf("%s by %s: header %v", what, user, a.header)
			}
		}
		for _, line := range rec.take() {
			if !strings.HasPrefix(line, "status") {
				t.Errorf("recorded: %s", line)
			}
		}
		if files := r.stored(); len(files) > 0 {
			t.Fatalf("stored: %v", files)
		}
	}
	refused("bob", "team/app", 403, "DENIED", "UserMismatch: the repository team/app belongs to "+aliceDID+", and the user bob is mapped to "+bobDID)
	refused("carol", "team/app", 403, "DENIED", "the user carol is mapped to no account")
	refused("alice", "app", 403, "DENIED", "belongs to "+ownDID)
	refused("bob", "bob.example.com/app", 503, "UNAVAILABLE", "nothing was stored")
	refused("carol", "bob.example.com/app", 403, "DENIED", "the user carol is mapped to no account")
	resolved.Store(true)
	refused("alice", "bob.example.com/app", 403, "DENIED", "belongs to bob.example.com ("+bobDID+")")

	for user, repository := range map[string]string{"op": "app", "alice": "team/app", "bob": "bob.example.com/app"} {
		image := r.as(user).image(repository, "OF-"+user, v1.MediaTypeImageManifest)
		if a := r.as(user).push(repository, "v1", image); a.status != http.StatusCreated {
			t.Errorf("push by %s: %d %s", user, a.status, a.body)
		}
		if a := r.as("carol").do("GET", "/v2/"+repository+"/manifests/v1", nil, "Accept", acceptAll); a.status != http.StatusOK {
			t.Errorf("pull by carol: %d %s", a.status, a.body)
		}
	}
}

// Anonymous pushes are refused.
func TestStrictAnonymous(t *testing.T) {
	t.Parallel()
	access := &owners.Access{Rules: &owners.Rules{Default: ownDID}}
	config := configure(t, observedYAML)
	rec := &fakeRecorder{alias: map[string]string{}}
	h, err := start(config, parts{recorder: rec, permit: func(repository, actor string) error { return refusal(access.Check(repository, actor)) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	r := serve(t, config, h.Wrap, rec)
	a := r.do("POST", "/v2/app/blobs/uploads/", nil)
	if _, message := decodeError(t, a); a.status != 403 || !strings.Contains(message, "the push is anonymous") || len(r.stored()) > 0 {
		t.Errorf("%d %s, stored %v", a.status, a.body, r.stored())
	}
}

// With all parts, the options decide who may push. A handle that can't be resolved is
// answered 503.
func TestStrictOptions(t *testing.T) {
	t.Parallel()
	r := serveTidings(t, configuration.Parameters{
		"owner": ownDID,
		"owners": []any{
			map[string]any{"repositories": []any{"team/**"}, "owner": aliceDID},
			map[string]any{"first_component": "handle"},
		},
		"actors": map[string]any{"strict": true, "accounts": []any{map[string]any{"user": "alice", "did": aliceDID}}},
	}, withUsers(t, "alice", "bob"))
	if a := r.as("bob").do("POST", "/v2/team/app/blobs/uploads/", nil); a.status != 403 {
		t.Errorf("upload by bob: %d %s", a.status, a.body)
	}
	if a := r.as("alice").do("POST", "/v2/nobody.invalid-name.example.com/app/blobs/uploads/", nil); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("upload to an unresolved handle: %d %s", a.status, a.body)
	}
	if files := r.stored(); len(files) > 0 {
		t.Fatalf("stored: %v", files)
	}
	alice := r.as("alice")
	image := alice.image("team/app", "IMAGE", v1.MediaTypeImageManifest)
	if a := alice.push("team/app", "v1", image); a.status != http.StatusCreated {
		t.Fatalf("push: %d %s", a.status, a.body)
	}
	if got := r.waitForPushes(1, func(p stats.Push) bool { return p.State == "counted" }); got[0].Repository != "team/app" {
		t.Errorf("pushes are %+v", got)
	}
}
