package repo

import (
	"bytes"
	"context"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
)

func TestNotices(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	before := r.Head()
	if err := r.Notify(t.Context(), Identity, Account, Sync); err != nil {
		t.Fatal(err)
	}
	if h := r.Head(); h.Commit != before.Commit || h.Rev != before.Rev {
		t.Errorf("a notice changed the head from %s to %s", before.Rev, h.Rev)
	}
	renewed, err := r.submit(request{ctx: t.Context(), commit: true, notices: []Notice{Identity, Sync}})
	if err != nil {
		t.Fatal(err)
	}
	if renewed.Rev <= before.Rev || r.Head().Data != before.Data {
		t.Errorf("fresh commit: %+v after %+v", r.Head(), before)
	}
	all := events(t, r, before.Seq)
	wants := []string{"#identity", "#account", "#sync", "#commit", "#identity", "#sync"}
	if len(all) != len(wants) {
		t.Fatalf("%d events, want %d", len(all), len(wants))
	}
	last := before.Seq
	for i, want := range wants {
		if got := kindOf(all[i]); got != want || all[i].Seq <= last {
			t.Errorf("event %d is %s with seq %d, want %s after %d", i, got, all[i].Seq, want, last)
		}
		last = all[i].Seq
	}
	if r.Head().Seq != last {
		t.Errorf("head seq %d, want %d", r.Head().Seq, last)
	}
	for i, head := range map[int]string{2: before.Rev, 5: renewed.Rev} {
		msg := decodeSync(t, all[i])
		commit, id, err := indigo.LoadCommitFromCAR(t.Context(), bytes.NewReader(msg.Blocks))
		if err != nil {
			t.Fatal(err)
		}
		verifySignature(t, cfg, commit)
		if msg.Rev != head || commit.Rev != head || msg.Did != testDID || uint64(msg.Seq) != all[i].Seq || len(msg.Blocks) > 10_000 {
			t.Errorf("#sync %d: rev %s, commit %s (%s), want %s", i, msg.Rev, commit.Rev, id, head)
		}
	}
	verifyFrame(t, cfg, all[3], commitEventOf(t, r, before))
	if err := r.Notify(t.Context(), "#handle"); err == nil {
		t.Error("an unknown notice is logged")
	}
	r = openAgain(t, r)
	if got := len(events(t, r, before.Seq)); got != len(wants) {
		t.Errorf("%d events after a restart, want %d", got, len(wants))
	}
	apply(t, r, note(Create, "a", "1"))
	r.Close()
	if err := r.Notify(context.Background(), Sync); err == nil {
		t.Error("a closed repo accepts notices")
	}
}

// commitEventOf returns the #commit that made a head.
func commitEventOf(t *testing.T, r *Repo, head Head) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	for _, e := range events(t, r, 0) {
		if kindOf(e) != "#commit" {
			continue
		}
		if msg := decodeCommit(t, e); msg.Rev == head.Rev {
			return msg
		}
	}
	t.Fatal("no #commit for the head")
	return nil
}

func TestDroppedEvents(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return at }
	r := initRepo(t, cfg, profile())
	apply(t, r, note(Create, "a", "1"))
	if dropped, err := r.DroppedEvents(); dropped != 0 || err != nil {
		t.Errorf("%d, %v while all are kept", dropped, err)
	}
	first := events(t, r, 0)
	at = at.Add(80 * time.Hour)
	apply(t, r, note(Create, "b", "1"))
	left := events(t, r, 0)
	if dropped, err := r.DroppedEvents(); dropped != first[len(first)-1].Seq || err != nil || len(left) != 1 {
		t.Errorf("dropped up to %d, %v; want %d", dropped, err, first[len(first)-1].Seq)
	}
	r = openAgain(t, r)
	at = at.Add(80 * time.Hour)
	apply(t, r, note(Create, "c", "1"))
	if dropped, err := r.DroppedEvents(); dropped != left[0].Seq || err != nil {
		t.Errorf("dropped up to %d, %v; want %d", dropped, err, left[0].Seq)
	}
}

func TestWake(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	head := r.Head().Seq
	awake := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	wake := r.Wake(head)
	if awake(wake) || !awake(r.Wake(head-1)) {
		t.Error("woken at the end, or not woken before it")
	}
	if err := r.Notify(t.Context(), Sync); err != nil {
		t.Fatal(err)
	}
	if !awake(wake) || !awake(r.Wake(head)) || awake(r.Wake(r.Head().Seq)) {
		t.Error("not woken by a new event")
	}
}
