package compare

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

const (
	movedTo = "https://pds.example.com"
	moveIn  = "the hold's account is deactivated because it has moved away, and nothing is written to it; the reference's may be moving in"
)

// manage activates or deactivates the account of the reference.
func (sd *side) manage(t *testing.T, active bool) error {
	method := map[bool]string{true: "com.atproto.server.activateAccount", false: "com.atproto.server.deactivateAccount"}[active]
	header := http.Header{"Authorization": {"Bearer " + sd.vars["access"]}, "X-Ratelimit-Bypass": {pds.BypassKey}}
	body := "{}"
	if active {
		body = "" // the method has no input
	} else {
		header.Set("Content-Type", "application/json")
	}
	got, err := sd.send(t, http.MethodPost, method, header, body)
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("%s: %v %s", method, got.answer, got.message)
	}
	return err
}

// compareDeactivated moves the hold's account away and deactivates the reference's,
// which must have the same responses, and activates both again.
func compareDeactivated(t *testing.T, theirs, ours *side) {
	for _, r := range []row{
		{name: "a record", post: putRecord, body: record(thing, "kept", `{"n":1}`, ""), want: ok, moves: true, save: map[string]string{"kept": "cid"}},
		{name: "a blob", post: "com.atproto.repo.uploadBlob", body: "kept", contentType: "text/plain", want: ok, save: map[string]string{"blob": "blob.ref.$link"}},
		{name: "a record with the blob", post: putRecord, body: record(thing, "kept-blob", `{"v":{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"text/plain","size":4}}`, ""), want: ok, moves: true},
	} {
		t.Run(r.name, func(t *testing.T) { compare(t, theirs, ours, r) })
	}
	since := lastEvents(t, theirs, ours)
	for _, sd := range []*side{theirs, ours} {
		if err := sd.activate(false); err != nil {
			t.Fatalf("%s: %v", sd.Name, err)
		}
	}
	their := theirs.nextFrames(t, theirs.subscribe(t, since[0]), 1)
	our := ours.nextFrames(t, ours.subscribe(t, since[1]), 2)
	sameKinds(t, "deactivated", our, "#identity", "#account") // because did.json changes
	sameKinds(t, "deactivated", their, "#account")
	sameLines(t, "deactivated", their[0].lines(), our[1].lines())

	for _, r := range deactivatedRows() {
		t.Run(r.name, func(t *testing.T) { compare(t, theirs, ours, r) })
	}

	since = [2]string{their[0].after(), our[1].after()}
	for _, sd := range []*side{theirs, ours} {
		if err := sd.activate(true); err != nil {
			t.Fatalf("%s: %v", sd.Name, err)
		}
	}
	their = theirs.nextFrames(t, theirs.subscribe(t, since[0]), 3)
	our = ours.nextFrames(t, ours.subscribe(t, since[1]), 3)
	sameKinds(t, "activated", their, "#account", "#identity", "#sync")
	sameKinds(t, "activated", our, "#identity", "#account", "#sync") // as at creation, in the reference's order
	sameLines(t, "activated: identity", their[1].lines(), our[0].lines())
	sameLines(t, "activated: account", their[0].lines(), our[1].lines())
	sameLines(t, "activated: sync", their[2].lines(), our[2].lines())
	for _, sd := range []*side{theirs, ours} {
		sd.head(t)
	}
	for _, r := range []row{
		{name: "getRepoStatus, active", get: "com.atproto.sync.getRepoStatus?did={did}", want: ok},
		{name: "a write, active", post: applyWrites, body: batch(many(1)...), want: ok, moves: true},
	} {
		t.Run(r.name, func(t *testing.T) { compare(t, theirs, ours, r) })
	}
}

// lastEvents returns the queries that continue after the last event of each side.
func lastEvents(t *testing.T, theirs, ours *side) (queries [2]string) {
	t.Helper()
	for i, sd := range []*side{theirs, ours} {
		conn := sd.subscribe(t, "?cursor=0")
		f := sd.nextFrames(t, conn, 1)[0]
		for member(f.body, "rev") != sd.vars["rev"] {
			f = sd.nextFrames(t, conn, 1)[0]
		}
		queries[i] = f.after()
	}
	return queries
}

// after returns the query that continues after a frame.
func (f frame) after() string { return fmt.Sprintf("?cursor=%.0f", member(f.body, "seq")) }

func sameKinds(t *testing.T, what string, frames []frame, want ...string) {
	t.Helper()
	var got []string
	for _, f := range frames {
		got = append(got, f.kind())
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %s, want %s", what, strings.Join(got, " "), strings.Join(want, " "))
	}
}

func deactivatedRows() []row {
	const (
		car      = "application/vnd.ipld.car"
		upload   = "com.atproto.repo.uploadBlob"
		importer = "com.atproto.repo.importRepo"
		account  = "Bearer {access}"
	)
	away := answer{401, "AccountDeactivated"}
	rows := []row{
		{name: "applyWrites", post: applyWrites, body: batch(many(1)...), want: away},
		{name: "applyWrites, empty batch", post: applyWrites, body: batch(), want: away},
		{name: "applyWrites, too many", post: applyWrites, body: batch(many(201)...), want: away},
		{name: "applyWrites, by handle", post: applyWrites, body: `{"repo":"{handle}","writes":[]}`, want: away},
		{name: "applyWrites, unknown account", post: applyWrites, body: `{"repo":"` + otherDID + `","writes":[]}`, want: answer{403, "AccountNotFound"}},
		{name: "applyWrites, writes missing", post: applyWrites, body: `{"repo":"{did}"}`, want: invalid},
		{name: "applyWrites, no session", post: applyWrites, as: "anonymous", body: batch(), want: answer{401, "AuthMissing"}},
		{name: "createRecord", post: createRecord, body: record(thing, "", `{}`, ""), want: away},
		{name: "putRecord, same content", post: putRecord, body: record(thing, "kept", `{"n":1}`, ""), want: away},
		{name: "deleteRecord", post: deleteRecord, body: record(thing, "kept", "", ""), want: away},
		{name: "deleteRecord, missing", post: deleteRecord, body: record(thing, "absent", "", ""), want: away},
		{name: "uploadBlob", post: upload, body: "text", contentType: "text/plain", want: ok, ours: &away, why: moveIn},
		{name: "importRepo, invalid CAR", post: importer, body: "x", contentType: car, want: answer{500, "InternalServerError"}, ours: &away, why: moveIn},
		{name: "listMissingBlobs", get: "com.atproto.repo.listMissingBlobs", as: account, want: ok},

		{name: "getRepoStatus", get: "com.atproto.sync.getRepoStatus?did={did}", want: ok},
		{name: "getRepoStatus, by the account", get: "com.atproto.sync.getRepoStatus?did={did}", as: account, want: ok},
		{name: "listRepos", get: "com.atproto.sync.listRepos", want: ok},
		{name: "subscribeRepos without an upgrade", get: "com.atproto.sync.subscribeRepos", want: invalid},
		{name: "getRepo, unknown account", get: "com.atproto.sync.getRepo?did=" + otherDID, want: badRequest("RepoNotFound")},
		{name: "getBlob, absent", get: "com.atproto.sync.getBlob?did={did}&cid=bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy", want: badRequest("RepoDeactivated")},
		{name: "getBlob, absent, by the account", get: "com.atproto.sync.getBlob?did={did}&cid=bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy", as: account, want: invalid},

		{name: "describeRepo", get: "com.atproto.repo.describeRepo?repo={did}", want: badRequest("RepoDeactivated")},
		{name: "describeRepo, by handle", get: "com.atproto.repo.describeRepo?repo={handle}", want: badRequest("RepoDeactivated")},
		{name: "describeRepo, by the account", get: "com.atproto.repo.describeRepo?repo={did}", as: account, want: badRequest("RepoDeactivated")},
		{name: "repo.getRecord", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=kept", want: invalid},
		{name: "repo.getRecord, by the account", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=kept", as: account, want: invalid},
		{name: "listRecords", get: "com.atproto.repo.listRecords?repo={did}&collection=" + thing, want: invalid},
		{name: "listRecords, by handle", get: "com.atproto.repo.listRecords?repo={handle}&collection=" + thing, want: invalid},

		{name: "resolveHandle", get: "com.atproto.identity.resolveHandle?handle={handle}", want: badRequest("HandleNotFound"), ours: &ok,
			why: "the handle is the hold's domain, which still verifies it"},
		{name: "getSession", get: getSession, as: account, want: ok, less: email, more: didDoc, why: noEmail},
		{name: "createSession", post: createSession, as: "anonymous", body: `{"identifier":"{did}","password":"{password}"}`, want: ok, less: email, more: didDoc, why: noEmail,
			save: map[string]string{"refresh of the deactivated": "refreshJwt"}},
		{name: "refreshSession", post: refreshSession, contentType: "none", as: "Bearer {refresh of the deactivated}", want: ok, less: email, more: didDoc, why: noEmail},
		{name: "getServiceAuth", get: serviceAuth + "&lxm=com.atproto.server.createAccount", as: account, want: ok},
	}
	for _, r := range []row{
		{get: "getLatestCommit?did={did}"},
		{get: "getHead?did={did}"},
		{get: "getRepo?did={did}", car: whole},
		{get: "getCheckout?did={did}", car: whole},
		{get: "getRepo?did={did}&since={rev}", car: "roots 1 head true, blocks false head false"},
		{get: "getRecord?did={did}&collection=" + thing + "&rkey=kept", car: whole},
		{get: "getBlocks?did={did}&cids={kept}", car: noCommit},
		{get: "getBlob?did={did}&cid={blob}"},
		{get: "listBlobs?did={did}"},
	} {
		r.name, r.get, r.want = r.get, "com.atproto.sync."+r.get, ok
		public := row{name: r.name + " without a session", get: r.get, want: badRequest("RepoDeactivated")}
		forged := row{name: r.name + " with an invalid token", get: r.get, as: "Bearer {tampered}", want: badRequest("InvalidToken")}
		r.name, r.as = r.name+" by the account", account
		rows = append(rows, public, forged, r)
	}
	return rows
}
