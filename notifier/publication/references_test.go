package publication

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/state"
)

const documentKey = "3l2cccccccc22"

// A referenceRig is a rig with a document, its post, and a clock.
type referenceRig struct {
	*rig
	*References
	clock   time.Time
	deleted bool  // the post is to be deleted
	refuse  error // of each call of Apply; nil: none
}

// refusing is the account of a referenceRig.
type refusing struct {
	delivery.EmbeddedRepo
	r *referenceRig
}

func (a refusing) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	if a.r.refuse != nil {
		return repo.Result{}, a.r.refuse
	}
	return a.EmbeddedRepo.Apply(ctx, writes, swap)
}

func newReferenceRig(t *testing.T) *referenceRig {
	t.Helper()
	r := &referenceRig{rig: newRig(t), clock: time.Unix(1_800_000_000, 0)}
	document, err := Document{Path: "/r/oss/app/v1", Title: "oss/app:v1", Published: r.clock}.Record("at://" + did + "/" + lexicon.NSIDPublication + "/3l2aaaaaaaa22")
	if err != nil {
		t.Fatal(err)
	}
	post, err := lexicon.Encode(map[string]any{"$type": lexicon.NSIDPost, "text": "oss/app:v1 was pushed", "createdAt": lexicon.Datetime(r.clock)})
	if err != nil {
		t.Fatal(err)
	}
	r.write(repo.Create, lexicon.NSIDDocument, document)
	r.write(repo.Create, lexicon.NSIDPost, post)
	r.restart()
	var b state.Batch
	r.Add(&b, documentKey)
	if err := r.state.Commit(&b, state.NoSync); err != nil {
		t.Fatal(err)
	}
	return r
}

// restart forgets all that is not in the state.
func (r *referenceRig) restart() {
	r.References = &References{
		State: r.state, Account: delivery.NewRepo(delivery.OnEmbedded(refusing{faulty{r.repo, r.rig}, r})), DID: did,
		Deleting: func(string) (bool, error) { return r.deleted, nil },
		Now:      func() time.Time { return r.clock }, Log: slog.New(slog.DiscardHandler),
	}
}

// write writes to the repo as another client; nil: deletes.
func (r *referenceRig) write(action repo.Action, collection string, record []byte) {
	r.t.Helper()
	w := repo.Write{Action: action, Collection: collection, RKey: documentKey, Record: record}
	if _, err := r.repo.Apply(r.t.Context(), []repo.Write{w}, nil); err != nil {
		r.t.Fatal(err)
	}
}

// document returns the document; nil if there is none.
func (r *referenceRig) document() map[string]any {
	r.t.Helper()
	_, value, err := r.repo.Get(lexicon.NSIDDocument, documentKey)
	if errors.Is(err, repo.ErrNotFound) {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := lexicon.Validate(lexicon.NSIDDocument, value); err != nil {
		r.t.Error(err)
	}
	fields, err := lexicon.Unmarshal(value)
	if err != nil {
		r.t.Fatal(err)
	}
	return fields
}

// referenced reports whether the document names the post with its CID.
func (r *referenceRig) referenced() bool {
	r.t.Helper()
	id, _, err := r.repo.Get(lexicon.NSIDPost, documentKey)
	if err != nil {
		r.t.Fatal(err)
	}
	ref, _ := r.document()[postRef].(map[string]any)
	return ref["uri"] == "at://"+did+"/"+lexicon.NSIDPost+"/"+documentKey && ref["cid"] == id.String()
}

// rows returns the number of documents that are to get a reference.
func (r *referenceRig) rows() int {
	r.t.Helper()
	rkeys, err := r.pending()
	if err != nil {
		r.t.Fatal(err)
	}
	return len(rkeys)
}

// Each fault of the update, with and without a restart: it is applied once, and after a fault it
// is repeated later.
func TestReferences(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault func(r *referenceRig)
		later bool
	}{
		"none":                   {func(*referenceRig) {}, false},
		"failed and not applied": {func(r *referenceRig) { r.lost = 1 }, true},
		"failed yet applied":     {func(r *referenceRig) { r.lostAnswer = 1 }, true},
	} {
		for _, killed := range []bool{false, true} {
			r := newReferenceRig(t)
			tc.fault(r)
			next := r.Write(t.Context())
			if got := next.After(r.clock); got != tc.later || r.rows() == 0 == tc.later {
				t.Errorf("%s: to be called again at %v, with %d rows", name, next, r.rows())
			}
			if killed {
				r.restart()
			} else {
				if got := r.Write(t.Context()); !got.Equal(next) {
					t.Errorf("%s: called early, it is to be called again at %v, want %v", name, got, next)
				}
				r.clock = r.clock.Add(firstWait)
			}
			if next := r.Write(t.Context()); !next.IsZero() || r.rows() != 0 || !r.referenced() || r.applied != 1 {
				t.Errorf("%s: next %v, %d rows, the document is %v after %d updates", name, next, r.rows(), r.document(), r.applied)
			}
		}
	}
}

// What has happened to the records meanwhile decides: a deleted document is not created again,
// and what others have written stays.
func TestReferencesMeanwhile(t *testing.T) {
	t.Parallel()
	other := map[string]any{"uri": "at://" + did + "/" + lexicon.NSIDPost + "/3l2dddddddd22", "cid": "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}
	changed := func(r *referenceRig, member string, value any) {
		fields := r.document()
		fields[member] = value
		record, err := lexicon.Encode(fields)
		if err != nil {
			t.Fatal(err)
		}
		r.write(repo.Update, lexicon.NSIDDocument, record)
	}
	for name, tc := range map[string]struct {
		do      func(r *referenceRig)
		updates int
		check   func(r *referenceRig) bool
	}{
		"the document is deleted": {
			func(r *referenceRig) { r.write(repo.Delete, lexicon.NSIDDocument, nil) }, 0,
			func(r *referenceRig) bool { return r.document() == nil },
		},
		"the post is deleted": {
			func(r *referenceRig) { r.write(repo.Delete, lexicon.NSIDPost, nil) }, 0,
			func(r *referenceRig) bool { return r.document()[postRef] == nil },
		},
		"the post is to be deleted": {
			func(r *referenceRig) { r.deleted = true }, 0,
			func(r *referenceRig) bool { return r.document()[postRef] == nil },
		},
		"the document was changed": {
			func(r *referenceRig) { changed(r, "theme", "dark") }, 1,
			func(r *referenceRig) bool { return r.referenced() && r.document()["theme"] == "dark" },
		},
		"the document names another post": {
			func(r *referenceRig) { changed(r, postRef, other) }, 0,
			func(r *referenceRig) bool { return !r.referenced() && r.document()[postRef] != nil },
		},
		"the document is invalid": {
			func(r *referenceRig) { changed(r, "path", int64(1)) }, 0,
			func(*referenceRig) bool { return true },
		},
		"the update is refused": {
			func(r *referenceRig) { r.refuse = &repo.WriteError{Err: errors.New("no")} }, 0,
			func(r *referenceRig) bool { return r.document()[postRef] == nil },
		},
	} {
		r := newReferenceRig(t)
		tc.do(r)
		if next := r.Write(t.Context()); !next.IsZero() || r.rows() != 0 || r.applied != tc.updates {
			t.Errorf("%s: next %v, %d rows, %d updates, want %d", name, next, r.rows(), r.applied, tc.updates)
		}
		if name != "the document is invalid" && !tc.check(r) {
			t.Errorf("%s: the document is %v", name, r.document())
		}
	}
}

// A document that is deleted after it was read is not created again.
func TestReferencesDeletedAfterRead(t *testing.T) {
	t.Parallel()
	r := newReferenceRig(t)
	w, err := r.update(t.Context(), documentKey)
	if err != nil {
		t.Fatal(err)
	}
	r.write(repo.Delete, lexicon.NSIDDocument, nil)
	var b state.Batch
	if err := r.deliver(t.Context(), &b, []repo.Write{w}); err != nil || r.document() != nil {
		t.Errorf("the document is %v, %v, want none", r.document(), err)
	}
}

// While the account can't be written to, attempts become rare; the service decides when there are
// points again.
func TestReferencesWait(t *testing.T) {
	t.Parallel()
	r := newReferenceRig(t)
	r.refuse = &pds.Error{Method: "com.atproto.repo.applyWrites", Outcome: pds.Unknown, Err: errFault}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		next := r.Write(t.Context())
		if got := next.Sub(r.clock); got != want*time.Minute {
			t.Errorf("the next attempt is after %v, want %v", got, want*time.Minute)
		}
		r.clock = next
	}
	r.restart()
	r.refuse = &pds.Error{Method: "com.atproto.repo.applyWrites", Outcome: pds.Limited, Until: r.clock.Add(17 * time.Minute)}
	next := r.Write(t.Context())
	if got := next.Sub(r.clock); got != 17*time.Minute {
		t.Errorf("the next attempt is after %v, want when there are points", got)
	}
	r.clock, r.refuse = next, nil
	if next := r.Write(t.Context()); !next.IsZero() || !r.referenced() || r.applied != 1 {
		t.Errorf("next %v, the document is %v", next, r.document())
	}
}
