package publication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a document gets the reference to its post
//
// A post has the CID of the document of its version, and the document has that of the post
// (bskyPostRef). Neither CID can be known before both records are written, so the document is
// written twice: with its post, without the reference, and then with it. The post keeps the
// CID of the first version. The AppView looks a document up by its URI and this CID
// (GetSiteStandardRecordsByRef in bluesky-social/atproto), so it must have seen that version, and
// a commit shows only the last version of a record; so the update is a commit of its own, after
// the one that creates the document. An AppView that forgets the version shows the small card.
//
// A document has the key of its post. The rows of the state are an outbox:
//
//	state.PostRefs <record key>   nothing
//
//  1. The commit that records the post as written adds the row of its document.
//  2. Both records are read.
//  3. One update adds the reference to the document as the account has it.
//  4. The row is deleted.
//
// Crash cases:
//
//   - Before 1: the post is in the outbox of the announce sink, which confirms it.
//   - Between 1 and 4, or if the answer to 3 is lost: both records are read again. A document
//     that names a post, its own or another that somebody has set, stays as it is.
//
// Nothing is written if one of the records does not exist any more or is to be deleted. An
// update of a missing record is refused, so a document that is deleted between 2 and 3 is not
// created again.
//
// The updates have the priority of records and are sent after what else the sink has to do. After
// a temporary error they are tried again, with longer and longer waits. An update that the
// account refuses is given up: the document stays as it is, and so does the post.

// References adds to documents the references to their posts. Its methods must not be called
// concurrently.
type References struct {
	State    state.Store
	Account  *delivery.Repo
	DID      string                          // of the account
	Deleting func(rkey string) (bool, error) // reports whether a post is to be deleted
	Now      func() time.Time
	Metrics  *sink.Metrics
	Log      *slog.Logger

	again time.Time     // when an attempt that failed is repeated; zero: none has failed
	wait  time.Duration // until then
}

const (
	maxReferences    = 20               // documents of an attempt
	referenceTimeout = 10 * time.Second // of an attempt, since posts wait for it
	firstWait        = time.Minute      // after an attempt that failed; doubled after each further one
	longestWait      = time.Hour
)

func referenceKey(rkey string) []byte { return append([]byte(state.PostRefs), rkey...) }

// Add adds to b the row of the document of a post that is written.
func (r *References) Add(b *state.Batch, rkey string) { b.Set(referenceKey(rkey), nil) }

// Write adds the references of the first rows, and returns when it is to be called again; zero:
// when there is another row.
func (r *References) Write(ctx context.Context) (next time.Time) {
	now := r.Now()
	if left := r.again.Sub(now); left > 0 && left <= longestWait { // the clock may jump
		return r.again
	}
	rkeys, err := r.pending()
	if err == nil && len(rkeys) > 0 {
		err = r.attempt(ctx, rkeys)
	}
	if err != nil {
		r.wait = min(max(firstWait, 2*r.wait), longestWait)
		if pause, ok := delivery.PauseOf(err); ok {
			r.wait = min(max(r.wait, pause.Until.Sub(now)), longestWait)
		}
		r.again = now.Add(r.wait)
		r.Log.Warn("the references of documents to their posts are written later", "documents", len(rkeys), "at", r.again, "error", err)
		return r.again
	}
	r.again, r.wait = time.Time{}, 0
	if len(rkeys) == maxReferences {
		return now // there may be more
	}
	return time.Time{}
}

// pending returns the record keys of the first rows.
func (r *References) pending() (rkeys []string, err error) {
	err = r.State.Scan(state.Prefix(state.PostRefs), func(key, _ []byte) error {
		if len(rkeys) == maxReferences {
			return state.ErrStop
		}
		rkeys = append(rkeys, string(key[len(state.PostRefs):]))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the documents without a reference: %w", err)
	}
	return rkeys, nil
}

// attempt adds the references of documents, and deletes the rows of those that have one, get
// none or are given up. The rows are not synced: losing a deletion is a crash before it.
func (r *References) attempt(ctx context.Context, rkeys []string) error {
	ctx, cancel := context.WithTimeout(ctx, referenceTimeout)
	defer cancel()
	var b state.Batch
	var writes []repo.Write
	for _, rkey := range rkeys {
		w, err := r.update(ctx, rkey)
		if err != nil {
			return err
		}
		if w.Action == "" {
			b.Delete(referenceKey(rkey))
			continue
		}
		writes = append(writes, w)
	}
	err := r.deliver(ctx, &b, writes)
	return errors.Join(err, r.State.Commit(&b, state.NoSync))
}

// update returns the update that adds the reference to a document; its Action is "" if there is
// none.
func (r *References) update(ctx context.Context, rkey string) (w repo.Write, err error) {
	if deleting, err := r.Deleting(rkey); deleting || err != nil {
		return w, err
	}
	id, _, err := r.Account.Get(ctx, lexicon.NSIDPost, rkey)
	if errors.Is(err, repo.ErrNotFound) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	_, document, err := r.Account.Get(ctx, lexicon.NSIDDocument, rkey)
	if errors.Is(err, repo.ErrNotFound) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	record, added, err := withPost(document, post.Ref{URI: "at://" + r.DID + "/" + lexicon.NSIDPost + "/" + rkey, CID: id.String()})
	if err != nil {
		r.giveUp(rkey, err)
		return w, nil
	}
	if !added {
		return w, nil
	}
	return repo.Write{Action: repo.Update, Collection: lexicon.NSIDDocument, RKey: rkey, Record: record}, nil
}

// deliver sends updates, without those that the account refuses for good, and deletes their rows
// in b.
func (r *References) deliver(ctx context.Context, b *state.Batch, writes []repo.Write) error {
	for fresh := true; len(writes) > 0; fresh = false {
		err := r.Account.Deliver(ctx, writes, fresh)
		var refused *repo.WriteError
		if errors.As(err, &refused) && refused.Index >= 0 && refused.Index < len(writes) {
			rkey := writes[refused.Index].RKey
			r.giveUp(rkey, refused)
			b.Delete(referenceKey(rkey))
			writes = slices.Delete(writes, refused.Index, refused.Index+1)
			continue
		}
		if err != nil {
			return err
		}
		for _, w := range writes {
			r.Metrics.Document("referenced")
			b.Delete(referenceKey(w.RKey))
		}
		return nil
	}
	return nil
}

func (r *References) giveUp(rkey string, reason error) {
	r.Metrics.Document("unreferenced")
	r.Log.Warn("a document stays without a reference to its post", "key", rkey, "error", reason)
}

// withPost returns a document with the reference to a post; false if it has one already.
func withPost(document []byte, ref post.Ref) (record []byte, added bool, err error) {
	fields, err := lexicon.Unmarshal(document)
	if err != nil {
		return nil, false, err
	}
	if _, has := fields[postRef]; has {
		return document, false, nil
	}
	fields[postRef] = map[string]any{"uri": ref.URI, "cid": ref.CID}
	record, err = encode(lexicon.NSIDDocument, fields)
	return record, err == nil, err
}

// postRef is the member of a document that names its post.
const postRef = "bskyPostRef"

// WithoutPost returns the first version of a document that got the reference to its post.
func WithoutPost(document []byte) ([]byte, error) {
	fields, err := lexicon.Unmarshal(document)
	if err != nil {
		return nil, err
	}
	delete(fields, postRef)
	return encode(lexicon.NSIDDocument, fields)
}
