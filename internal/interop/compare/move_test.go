package compare

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// TestMove follows the steps of docs/account.md: the account of a hold moves to the
// reference PDS and back.
func TestMove(t *testing.T) {
	ctx := t.Context()
	reference, tidings, program, data := servers(t, pds.StartLocal)
	hold := newSide(t, tidings)
	there := &side{Server: reference, http: hold.http, vars: map[string]string{}}
	command := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	config, car := filepath.Join(data, "config.yml"), filepath.Join(t.TempDir(), "out.car")

	hold.do(t, row{post: "com.atproto.repo.uploadBlob", body: "a blob", contentType: "text/plain", save: map[string]string{"blob": "blob.ref.$link"}})
	hold.do(t, row{post: putRecord, body: record(thing, "one", `{"v":{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"text/plain","size":6}}`, ""), save: map[string]string{"one": "cid"}})
	hold.do(t, row{post: applyWrites, body: batch(many(200)...)})
	there.vars["did"], there.vars["blob"], there.vars["one"] = hold.DID, hold.vars["blob"], hold.vars["one"]

	// 1. Create the account at the new host.
	there.do(t, row{get: "com.atproto.server.describeServer", save: map[string]string{"service": "did"}})
	hold.do(t, row{get: "com.atproto.server.getServiceAuth?aud=" + there.vars["service"] + "&lxm=com.atproto.server.createAccount", as: "Bearer {access}",
		save: map[string]string{"token": "token"}})
	there.do(t, row{post: "com.atproto.server.createAccount", as: "Bearer " + hold.vars["token"],
		body: `{"did":"{did}","handle":"moved.test","email":"moved@example.com","password":"secret"}`, save: map[string]string{"access": "accessJwt"}})

	// 2. and 3. Export and import.
	if err := tidings.Stop(); err != nil {
		t.Fatal(err)
	}
	command("hold", "export", "--no-blobs", config, car)
	exported, err := os.ReadFile(car)
	if err != nil {
		t.Fatal(err)
	}
	there.do(t, row{post: "com.atproto.repo.importRepo", body: string(exported), contentType: "application/vnd.ipld.car"})

	// 4. and 5. Set moved_to and start.
	there.do(t, row{get: "com.atproto.identity.getRecommendedDidCredentials", as: "Bearer {access}", save: map[string]string{"key": "verificationMethods.atproto"}})
	if err := errors.Join(pds.SetMovedTo(data, reference.URL, there.vars["key"]), tidings.Resume(ctx, program, data)); err != nil {
		t.Fatal(err)
	}
	there.do(t, row{get: "com.atproto.repo.listMissingBlobs", as: "Bearer {access}", save: map[string]string{"missing": "blobs.0.cid"}})
	if there.vars["missing"] != hold.vars["blob"] {
		t.Errorf("missing there: %s, want %s", there.vars["missing"], hold.vars["blob"])
	}
	blob := hold.do(t, row{get: "com.atproto.sync.getBlob?did={did}&cid={blob}", as: "Bearer {access}"})
	there.do(t, row{post: "com.atproto.repo.uploadBlob", body: string(blob.body), contentType: "text/plain"})

	// 6. Activate. The PDS checks did.json first.
	there.do(t, row{post: "com.atproto.server.activateAccount", contentType: "none"})
	there.do(t, row{get: "com.atproto.sync.getRepoStatus?did={did}", save: map[string]string{"active": "active"}})
	there.do(t, row{get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=one", save: map[string]string{"moved": "cid"}})
	if there.vars["active"] != "true" || there.vars["moved"] != hold.vars["one"] {
		t.Errorf("there: active %s, record %s; want %s", there.vars["active"], there.vars["moved"], hold.vars["one"])
	}
	there.do(t, row{get: "com.atproto.sync.getBlob?did={did}&cid={blob}"})
	there.do(t, row{post: putRecord, body: record(thing, "two", `{"n":2}`, ""), save: map[string]string{"two": "cid", "rev": "commit.rev"}})
	if got := hold.ask(t, row{post: putRecord, body: record(thing, "two", `{}`, "")}); got.answer != (answer{401, "AccountDeactivated"}) {
		t.Errorf("write to the hold: %v %s", got.answer, got.message)
	}

	// Move back.
	there.do(t, row{post: "com.atproto.server.deactivateAccount", body: `{}`})
	back := there.do(t, row{get: "com.atproto.sync.getRepo?did={did}", as: "Bearer {access}"})
	if err := os.WriteFile(car, back.body, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tidings.Stop(), pds.SetMovedTo(data, "", "")); err != nil {
		t.Fatal(err)
	}
	command("hold", "import", config, car)
	command("hold", "verify", config)
	if err := tidings.Resume(ctx, program, data); err != nil {
		t.Fatal(err)
	}
	hold.do(t, row{get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=two", save: map[string]string{"two": "cid"}})
	hold.do(t, row{get: "com.atproto.sync.getBlob?did={did}&cid={blob}"})
	hold.do(t, row{get: "com.atproto.sync.getRepoStatus?did={did}", save: map[string]string{"active": "active"}})
	hold.head(t)
	if hold.vars["two"] != there.vars["two"] || hold.vars["active"] != "true" || hold.vars["rev"] <= there.vars["rev"] {
		t.Errorf("back: record %s, want %s; active %s; rev %s after %s", hold.vars["two"], there.vars["two"], hold.vars["active"], hold.vars["rev"], there.vars["rev"])
	}
}

// do sends a row's request, which must be answered 200.
func (sd *side) do(t *testing.T, r row) reply {
	t.Helper()
	r.get = strings.ReplaceAll(r.get, "{did}", url.QueryEscape(sd.vars["did"]))
	verb, path, header := sd.request(r)
	body := r.body
	if r.contentType == "" {
		body = sd.fill(body)
	}
	got, err := sd.send(t, verb, path, header, body)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("%s: %s%s: %v %s %v", sd.Name, r.get, r.post, got.answer, got.message, err)
	}
	for name, path := range r.save {
		sd.vars[name] = fmt.Sprint(member(got.json, path))
	}
	return got
}
