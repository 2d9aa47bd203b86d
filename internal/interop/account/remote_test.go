package account

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// A gate is in front of a hold. It notes the audiences of the tokens that the hold gets,
// and may refuse those with a fragment, as a hold that knows only its DID.
type gate struct {
	http.Handler // the hold

	mu        sync.Mutex
	bare      bool     // only bare audiences are accepted
	audiences []string // of the calls
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	audience, ok := audienceOf(r.Header.Get("Authorization"))
	g.mu.Lock()
	if ok {
		g.audiences = append(g.audiences, audience)
	}
	refuse := g.bare && strings.Contains(audience, "#")
	g.mu.Unlock()
	if !refuse {
		g.Handler.ServeHTTP(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprint(w, `{"error":"BadJwtAudience","message":"jwt audience does not match service did"}`)
}

// audienceOf returns the audience of a service token.
func audienceOf(authorization string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(authorization, "Bearer "), ".")
	if len(parts) != 3 {
		return "", false
	}
	var claims struct{ Aud string }
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	return claims.Aud, err == nil && json.Unmarshal(raw, &claims) == nil && claims.Aud != ""
}

// takeAudiences returns the audiences since the last call.
func (g *gate) takeAudiences() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := g.audiences
	g.audiences = nil
	return taken
}

// acceptOnlyBare refuses audiences with a fragment from now on.
func (g *gate) acceptOnlyBare() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bare = true
}

// startHold starts a hold that accepts the account of a PDS, behind a gate.
func startHold(t *testing.T, program string, reference *pds.Server) (*pds.Server, *gate) {
	t.Helper()
	g := &gate{}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(front.URL, "http://"), ":")
	hold, err := pds.StartAccepting(t.Context(), program, t.TempDir(), "localhost:"+port, reference.PLC, reference.DID)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, func() error { return hold.Stop() })
	target, err := url.Parse(hold.URL)
	if err != nil {
		t.Fatal(err)
	}
	g.Handler = httputil.NewSingleHostReverseProxy(target)
	hold.URL = front.URL
	return hold, g
}

// A registry reports to a hold with the service tokens that the PDS of its account issues:
// for the service of the hold, and for its DID alone if it accepts nothing else. The hold
// records and counts each push once, and the pulls.
func TestRemoteAccount(t *testing.T) {
	reference, program := startReference(t)
	hold, gate := startHold(t, program, reference)
	registry, err := pds.NewReporter(t.Context(), program, filepath.Join(t.TempDir(), "registry"), reference, hold.DID, "")
	if err != nil {
		t.Fatal(err)
	}
	startRegistry(t, registry)

	first, second, third := newImage(t, 1), newImage(t, 2), newImage(t, 3)
	push(t, registry, "oss/app:v1.0.0", first)
	push(t, registry, "oss/app:latest", first)
	push(t, registry, "secret/app:v1", newImage(t, 1))
	for range 2 {
		if _, err := remote.Get(tag(t, registry, "oss/app:latest"), remote.WithContext(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	waitDrained(t, registry)
	service := hold.DID + "#atcr_hold"
	if got := gate.takeAudiences(); len(got) != 4 || slices.ContainsFunc(got, func(a string) bool { return a != service }) {
		t.Errorf("audiences %q, want that of the service for two pushes and two pulls", got)
	}

	gate.acceptOnlyBare()
	push(t, registry, "oss/multi:v2", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: second}, mutate.IndexAddendum{Add: third}))
	waitDrained(t, registry)
	if got := gate.takeAudiences(); !slices.Contains(got, service) || !slices.Contains(got, hold.DID) {
		t.Errorf("audiences %q, want that of the service, then the DID", got)
	}
	push(t, registry, "oss/app:v1.1.0", second)
	waitDrained(t, registry)
	if got := gate.takeAudiences(); len(got) != 1 || got[0] != hold.DID {
		t.Errorf("audiences %q, want the DID, which the hold has accepted", got)
	}
	checkAtHold(t, hold, reference.DID, []v1.Image{first, second, third})
	checkAnswers(t, registry, map[string]int{"oss/app:v1.0.0": 1, "oss/app:latest": 0, "oss/multi:v2": 0, "oss/app:v1.1.0": 0})
}

// checkAtHold checks the records and counts of the hold.
func checkAtHold(t *testing.T, hold *pds.Server, owner string, images []v1.Image) {
	t.Helper()
	var listed struct {
		Records []struct{ Value map[string]any }
	}
	get(t, hold.URL+"/xrpc/com.atproto.repo.listRecords?limit=100&collection="+lexicon.NSIDLayer+"&repo="+url.QueryEscape(hold.DID), &listed)
	var got, want []string
	for _, r := range listed.Records {
		got = append(got, describe(r.Value))
	}
	for _, m := range images {
		want = append(want, layersOf(t, owner, m)...)
	}
	compare(t, "layer records of the hold", got, want)
	for repository, want := range map[string]struct{ Pushes, Pulls int }{"oss/app": {3, 2}, "oss/multi": {3, 0}} {
		var counts struct{ Pushes, Pulls int }
		if get(t, hold.URL+"/tidings/api/v1/repositories/"+owner+"/"+repository, &counts); counts != want {
			t.Errorf("%s: counts %+v, want %+v", repository, counts, want)
		}
	}
}

// checkAnswers checks what the registry shows of the hold's answers to pushes with a tag:
// by repository and tag, how many records each has created.
func checkAnswers(t *testing.T, registry *pds.Registry, created map[string]int) {
	t.Helper()
	var list struct {
		Pushes []struct {
			Repository, State, Reason string
			Tags                      []string
			Remote                    *lexicon.NotifyManifestOutput
		}
	}
	if err := registry.API(t.Context(), "pushes?limit=100", &list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Pushes {
		image := p.Repository + ":" + strings.Join(p.Tags, " ")
		a := p.Remote
		if p.Repository == "secret/app" {
			if p.State != "counted" || a != nil {
				t.Errorf("a private push: %+v", p)
			}
			continue
		}
		if p.State != "done" || p.Reason != "" || a == nil || !a.Success || a.Operation != lexicon.OperationPush || !a.StatsUpdated || a.LayersCreated == nil || a.PostCreated == nil || *a.PostCreated {
			t.Errorf("push %+v, answer %+v", p, a)
			continue
		}
		if want, ok := created[image]; ok && *a.LayersCreated != want {
			t.Errorf("%s: %d records created, want %d", image, *a.LayersCreated, want)
		}
		delete(created, image)
	}
	if len(created) > 0 {
		t.Errorf("not listed: %v", created)
	}
}

// get gets JSON.
func get(t *testing.T, address string, out any) {
	t.Helper()
	if body := getBytes(t, address); json.Unmarshal(body, out) != nil {
		t.Fatalf("%s: %s", address, body)
	}
}

func getBytes(t *testing.T, address string) []byte {
	t.Helper()
	q, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %.300s, %v", address, res.Status, body, err)
	}
	return body
}
