package notifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A state of format 2 is migrated with its outbox: nothing is written twice and nothing is
// lost, whether the batch in the outbox was sent or not.
func TestMigrate(t *testing.T) {
	t.Parallel()
	written, claimed, gone := image("written", 2), image("claimed", 3), image("gone", 2)
	for _, sent := range []bool{false, true} {
		t.Run(fmt.Sprint("batch sent ", sent), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			r.push(written.as("oss/app", "v1"))
			r.push(gone)
			r.drain()
			posts := r.posts()
			// Replace the rows by those of the earlier version, which has its last push and
			// a delete in the outbox.
			r.full.Store(true)
			r.push(claimed.as("oss/app", ""))
			r.stop()
			r.open(shortWindows())
			r.stopSinks()
			e := r.event(3)
			second := r.event(2)
			old := map[string]any{}
			entry := func(p Push, state string, first int64, clockID uint, records int) {
				old["l/"+owner+"\x00"+p.Digest] = map[string]any{
					"state": state, "first": first, "clockId": clockID, "records": records, "repositories": []string{"oss/app"},
				}
			}
			first := r.event(1)
			entry(written, "written", first.TID, first.ClockID, 2)
			entry(claimed, "claimed", e.TID, e.ClockID, 3)
			old["l/"+owner+"\x00"+gone.Digest] = map[string]any{"state": "deleted", "first": second.TID, "clockId": second.ClockID, "records": 2, "deleted": e.TID}
			old["l/"+owner+"\x00"+image("other", 1).Digest] = map[string]any{"state": "deleted", "deleted": 1}
			old["a/d/oss/app\x00"+written.Digest] = map[string]any{"postUri": "at://" + owner + "/app.bsky.feed.post/" + posts[0]["rkey"].(string)}
			old["k/2026-11-26/a token"] = map[string]any{"seq": 2, "time": e.Time}
			creates, err := records.Creates(owner, claimed.Digest, event.PlanOf(e).Records, ledgerEntry(e, 3))
			if err != nil {
				t.Fatal(err)
			}
			deletes := records.Deletes(ledgerEntry(second, 2))
			old["b/records"] = map[string]any{"manifests": []any{
				map[string]any{"seq": 3, "owner": owner, "digest": claimed.Digest, "before": map[string]any{"state": ""},
					"after": old["l/"+owner+"\x00"+claimed.Digest], "writes": creates},
				map[string]any{"seq": 3, "owner": owner, "digest": gone.Digest, "before": map[string]any{"state": "written"},
					"after": old["l/"+owner+"\x00"+gone.Digest], "writes": deletes},
			}}
			b := &state.Batch{}
			for _, prefix := range []string{"m/", "a/", "b/"} {
				b.DeleteRange(state.Prefix(prefix))
			}
			for key, val := range old {
				raw, err := json.Marshal(val)
				if err != nil {
					t.Fatal(err)
				}
				b.Set([]byte(key), raw)
			}
			if err := r.state.Commit(b, state.Sync); err != nil {
				t.Fatal(err)
			}
			if sent {
				r.apply(append(append([]repo.Write{}, creates...), deletes...)...)
			}
			r.storage.remove(gone)
			r.stop()

			r.full.Store(false)
			r.open(shortWindows())
			r.push(written.as("oss/app", "v1"))
			r.push(written.as("oss/app", "v2"))
			r.drain()
			r.consistent()
			if got := len(r.records()); got != 5 {
				t.Errorf("%d records, want 5", got)
			}
			if got := len(r.posts()); got != 1 {
				t.Errorf("%d posts, want 1", got)
			}
			if _, err := r.inbound.Begin(t.Context(), &inbound.ID{Token: "a token"}); !errors.Is(err, inbound.ErrTokenUsed) {
				t.Errorf("the token is not known: %v", err)
			}
			if reason, err := r.stores.Mismatch(t.Context()); reason != "" || err != nil {
				t.Errorf("the stores do not match: %s, %v", reason, err)
			}
			for _, prefix := range []string{"l/", "a/d/", "a/m/", "k/2"} {
				if err := r.state.Scan(state.Prefix(prefix), func(key, _ []byte) error { return fmt.Errorf("%s is left", key) }); err != nil {
					t.Error(err)
				}
			}
			if r.journal.Cursor(journal.Pushes, records.Name) < 3 {
				t.Error("the records sink has pending events")
			}
		})
	}
}
