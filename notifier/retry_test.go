package notifier

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
)

// refuse makes the account refuse the writes of a collection, "" for none.
func (r *rig) refuse(collection string) {
	r.account.mu.Lock()
	defer r.account.mu.Unlock()
	r.account.refused = collection
}

// A letter is retried by its sink alone: what was refused is written once, with the keys of
// the push, nothing is counted or posted again, and the letter is gone.
func TestRetryLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.refuse(lexicon.NSIDLayer)
	r.push(image("one", 2).as("oss/app", "v1"))
	r.drain()
	box := deadletters.Box{Sink: records.Name, Stream: journal.Pushes}
	if all := r.letters(); len(all) != 1 || all[0].Attempts != 1 || all[0].Event == nil || len(r.posts()) != 1 {
		t.Fatalf("letters %+v, %d posts", all, len(r.posts()))
	}
	seq := r.letters()[0].First
	retry := func() {
		t.Helper()
		if err := r.RetryLetter(t.Context(), box, seq); err != nil {
			t.Fatal(err)
		}
		r.drain()
	}
	retry() // it is refused again
	if all := r.letters(); len(all) != 1 || all[0].First != seq || all[0].Attempts != 2 || all[0].Retrying || !strings.Contains(all[0].Reason, "refused") || all[0].Event == nil {
		t.Fatalf("letters %+v", all)
	}
	r.refuse("")
	retry()
	if all := r.letters(); len(all) != 0 {
		t.Errorf("letters %+v", all)
	}
	if got := r.list(lexicon.NSIDLayer); len(got) != 2 || len(r.posts()) != 1 {
		t.Errorf("%d records and %d posts, want 2 and 1", len(got), len(r.posts()))
	}
	if _, tags, _, err := r.counter.Repository(t.Context(), "oss/app"); err != nil || tags["v1"]["push"] != 1 {
		t.Errorf("counts %v, %v; want one push", tags, err)
	}
	if err := r.RetryLetter(t.Context(), box, seq); !errors.Is(err, deadletters.ErrNotFound) {
		t.Errorf("a letter that is gone: %v", err)
	}
	r.consistent()
}

// A refused post is written by a retry, once, and if it is old in a summary.
func TestRetryPost(t *testing.T) {
	t.Parallel()
	for name, maxAge := range map[string]time.Duration{"recent": time.Hour, "old": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRetryPost(t, maxAge)
		})
	}
}

func testRetryPost(t *testing.T, maxAge time.Duration) {
	t.Helper()
	cfg := shortWindows()
	cfg.MaxAge = time.Hour
	r := newRig(t, cfg)
	r.refuse(lexicon.NSIDPost)
	r.push(image("one", 2).as("oss/app", "v1"))
	r.until("a letter", func() bool { return len(r.letters()) == 1 })
	all := r.letters()
	if len(all) != 1 || all[0].Sink != "announce" {
		t.Fatalf("letters %+v", all)
	}
	r.refuse("")
	cfg.MaxAge = maxAge
	r.reopen(cfg)
	if err := r.RetryLetter(t.Context(), deadletters.Box{Sink: "announce", Stream: journal.Pushes}, all[0].First); err != nil {
		t.Fatal(err)
	}
	r.drain()
	r.until("a post", func() bool { return len(r.posts()) == 1 && len(r.letters()) == 0 })
	if all := r.letters(); len(all) != 0 || len(r.posts()) != 1 {
		t.Errorf("letters %+v, %d posts; want none and one", all, len(r.posts()))
	}
}

// A letter is not retried twice at once or dropped meanwhile. A start removes the mark of a
// letter whose retry did not reach the journal, and keeps that of a pending one.
func TestRetryRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.refuse(lexicon.NSIDLayer)
	r.push(image("one", 2).as("oss/app", "v1"))
	r.push(image("two", 2).as("oss/app", "v2"))
	r.drain()
	box, all := deadletters.Box{Sink: records.Name, Stream: journal.Pushes}, r.letters()
	if len(all) != 2 {
		t.Fatalf("letters %+v", all)
	}
	r.account.down.Store(true)
	r.refuse("")
	if err := r.RetryLetter(t.Context(), box, all[0].First); err != nil {
		t.Fatal(err)
	}
	if err := r.RetryLetter(t.Context(), box, all[0].First); !errors.Is(err, deadletters.ErrRetrying) {
		t.Errorf("the second retry: %v", err)
	}
	if err := r.dead.Drop(box, all[0].First); !errors.Is(err, deadletters.ErrRetrying) {
		t.Errorf("drop: %v", err)
	}
	if _, err := r.dead.BeginRetry(box, all[1].First); err != nil { // the process is killed before the append
		t.Fatal(err)
	}
	r.account.down.Store(false)
	r.reopen(shortWindows())
	r.drain()
	left := r.letters()
	if len(left) != 1 || left[0].First != all[1].First || left[0].Retrying {
		t.Fatalf("letters %+v", left)
	}
	if got := r.list(lexicon.NSIDLayer); len(got) != 2 {
		t.Errorf("%d records, want 2", len(got))
	}
	if err := r.RetryLetter(t.Context(), box, all[1].First); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if left := r.letters(); len(left) != 0 || len(r.list(lexicon.NSIDLayer)) != 4 {
		t.Errorf("letters %+v, %d records", left, len(r.list(lexicon.NSIDLayer)))
	}
	r.consistent()
}

// What cannot be retried says so.
func TestRetryImpossible(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if err := r.dead.Add(journal.Pushes, records.Name, 1, "no", nil); err != nil {
		t.Fatal(err)
	}
	for box, want := range map[deadletters.Box]error{
		{Sink: records.Name, Stream: journal.Pushes}: deadletters.ErrNoEvent,
		{Sink: records.Name, Stream: journal.Pulls}:  ErrNotRetryable,
		{Sink: "counters", Stream: journal.Pulls}:    deadletters.ErrNotFound,
		{Sink: "announce", Stream: journal.Pushes}:   ErrUnknownSink,
	} {
		if err := r.RetryLetter(t.Context(), box, 1); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", box, err, want)
		}
	}
}

// The envelope of a retry keeps the event as it is, and an earlier program leaves it
// pending.
func TestRetryEncoding(t *testing.T) {
	t.Parallel()
	pushed := event.Event{Version: event.Version, NotifyManifestInput: lexicon.NotifyManifestInput{Repository: "oss/app", Operation: event.OpPush}}
	payload := pushed.EncodePushed([]byte(`{"schemaVersion": 2, "event":{"a":[1]}}`))
	retry, err := event.EncodeRetry(event.Retry{Sink: "records", Letter: 7}, payload)
	if err != nil {
		t.Fatal(err)
	}
	r, inner, ok := event.CutRetry(retry)
	if !ok || r != (event.Retry{Sink: "records", Letter: 7}) || string(inner) != string(payload) {
		t.Errorf("%+v %q %v", r, inner, ok)
	}
	e, err := event.Decode(retry)
	if err != nil || e.Retry == nil || e.Origin != 7 || e.Repository != "oss/app" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, _, ok := event.CutRetry(payload); ok {
		t.Error("a push is a retry")
	}
	if !strings.HasPrefix(string(retry), `{"v":6,`) || event.Version >= 6 {
		t.Error("an earlier program would count the retry")
	}
}

// The letter of a retried announcement stays while its version waits, also after a restart. If
// the post is refused again, the letter has one more attempt and its event; if it is written,
// the letter is gone.
func TestRetryWaits(t *testing.T) {
	t.Parallel()
	cfg := policy()
	r, m := newManualRig(t, cfg)
	r.refuse(lexicon.NSIDPost)
	r.pushed(m, image("one", 1).as("oss/app", "v1"))
	expect := func(when string, attempts int, retrying bool) {
		t.Helper()
		all := r.letters()
		if attempts == 0 && len(all) == 0 {
			return
		}
		if len(all) != 1 || all[0].Sink != announce.Name || all[0].First != 1 || all[0].Event == nil || all[0].Attempts != attempts || all[0].Retrying != retrying {
			t.Errorf("%s: letters %+v, want one with %d attempts, retrying %v", when, all, attempts, retrying)
		}
	}
	expect("after the refusal", 1, false)
	r.refuse("")
	m.Pass(10 * time.Minute)
	r.pushed(m, image("two", 1).as("oss/app", "v2")) // begins a cooldown
	retry := func() {
		t.Helper()
		if err := r.RetryLetter(t.Context(), deadletters.Box{Sink: announce.Name, Stream: journal.Pushes}, 1); err != nil {
			t.Fatal(err)
		}
		seq := r.journal.Status(journal.Pushes).Last
		m.Pass(time.Minute)
		r.mustStep()
		if err := r.endRetries(announce.Name, []event.Sequenced{{Event: &event.Event{Retry: &event.Retry{Sink: announce.Name, Letter: 1}}, Seq: seq}}); err != nil {
			t.Fatal(err)
		}
		if got := r.announced(seq); !got.Waiting {
			t.Fatalf("the retry has the result %+v, want that it waits", got)
		}
	}
	afterCooldown := func() {
		t.Helper()
		m.Pass(10 * time.Minute)
		r.mustStep()
		if err := r.endWaitingRetries(); err != nil {
			t.Fatal(err)
		}
	}
	retry()
	expect("while it waits", 1, true)
	r.refuse(lexicon.NSIDPost)
	afterCooldown()
	expect("refused again", 2, false)
	r.refuse("")
	retry() // in the cooldown of the refused post
	r.reopenCopy(cfg)
	r.mustStep()
	expect("after a restart", 2, true)
	afterCooldown()
	expect("after the post", 0, false)
	if got := r.texts(); len(got) != 2 {
		t.Errorf("posts %q, want two", got)
	}
}
