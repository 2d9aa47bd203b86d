package repair

import (
	"bytes"
	"context"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
)

const testDID = "did:web:localhost%3A5000"

func testKey(t testing.TB) atcrypto.PrivateKeyExportable {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testConfig(t testing.TB) repo.Config {
	return repo.Config{Dir: "hold", DID: testDID, Key: testKey(t), FS: vfs.NewMem(), Reserve: 1}
}

// profile is the record that is never deleted.
func profile() repo.Write {
	return repo.Write{Action: repo.Create, Collection: "app.bsky.actor.profile", RKey: "self", Record: record("profile")}
}

func record(text string) []byte {
	data, err := atdata.MarshalCBOR(map[string]any{"$type": "com.example.note", "text": text})
	if err != nil {
		panic(err)
	}
	return data
}

func note(action repo.Action, rkey, text string) repo.Write {
	w := repo.Write{Action: action, Collection: "com.example.note", RKey: rkey}
	if action != repo.Delete {
		w.Record = record(text)
	}
	return w
}

func initRepo(t testing.TB, cfg repo.Config, first ...repo.Write) *repo.Repo {
	t.Helper()
	r, err := repo.Init(cfg, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func openRepo(t testing.TB, cfg repo.Config) *repo.Repo {
	t.Helper()
	r, err := repo.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func apply(t testing.TB, r *repo.Repo, writes ...repo.Write) {
	t.Helper()
	if _, err := r.Apply(context.Background(), writes, nil); err != nil {
		t.Fatal(err)
	}
}

// model has the expected records of a repo.
type model map[string][]byte

func (m model) apply(writes []repo.Write) {
	for _, w := range writes {
		if w.Action == repo.Delete {
			delete(m, mst.JoinPath(w.Collection, w.RKey))
		} else {
			m[mst.JoinPath(w.Collection, w.RKey)] = w.Record
		}
	}
}

// checkRecords compares the records with the model.
func checkRecords(t testing.TB, r *repo.Repo, m model) {
	t.Helper()
	for path, want := range m {
		if _, got, err := r.Get(mst.SplitPath(path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is %q, want %q (%v)", path, got, want, err)
		}
	}
}

func events(t testing.TB, r *repo.Repo, after uint64) []repo.Event {
	t.Helper()
	var all []repo.Event
	for {
		page, err := r.Events(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

// kinds lists the kinds of the events after a sequence number, of #account with
// its status.
func kinds(t testing.TB, r *repo.Repo, after uint64) (kinds []string) {
	t.Helper()
	for _, e := range events(t, r, after) {
		message, err := frame.Decode(e.Frame)
		if err != nil {
			t.Fatal(err)
		}
		kind := ""
		switch msg := message.(type) {
		case *comatproto.SyncSubscribeRepos_Commit:
			kind = "#commit"
		case *comatproto.SyncSubscribeRepos_Sync:
			kind = "#sync"
		case *comatproto.SyncSubscribeRepos_Identity:
			kind = "#identity"
		case *comatproto.SyncSubscribeRepos_Account:
			if kind = "#account active"; msg.Status != nil {
				kind = "#account " + *msg.Status
			}
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

func fixedClock(at time.Time) func() time.Time { return func() time.Time { return at } }
