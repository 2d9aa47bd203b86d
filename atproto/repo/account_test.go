package repo

import (
	"errors"
	"slices"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
)

const elsewhere = "https://pds.example.com"

// kindsAfter lists the kinds of the events after a sequence number, of #account
// with its status.
func kindsAfter(t testing.TB, r *Repo, after uint64) (kinds []string) {
	t.Helper()
	for _, e := range events(t, r, after) {
		kind := kindOf(e)
		if msg, ok := decode(t, e).(*comatproto.SyncSubscribeRepos_Account); ok {
			if msg.Did != testDID || msg.Active != (msg.Status == nil) {
				t.Fatalf("%+v", msg)
			}
			if kind += " active"; msg.Status != nil {
				kind = "#account " + *msg.Status
			}
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

func deactivate(t testing.TB, r *Repo, to string, want bool) {
	t.Helper()
	if notified, err := r.Deactivate(t.Context(), to); notified != want || err != nil {
		t.Errorf("to %s: notified %v, %v; want %v", to, notified, err, want)
	}
}

// checkRefused checks that all writes are refused, with the reason in the error.
func checkRefused(t testing.TB, r *Repo, to string) {
	t.Helper()
	before := r.Head()
	_, applied := r.Apply(t.Context(), []Write{note(Create, "refused", "1")}, nil)
	_, renewed := r.submit(request{ctx: t.Context(), commit: true, notices: []Notice{Sync}})
	_, uploaded := r.Upload(t.Context(), strings.NewReader("blob"), 10, func([]byte) string { return "text/plain" })
	for what, err := range map[string]error{
		"Apply": applied, "a commit with notices": renewed, "Upload": uploaded, "Health": r.Health(),
		"Notify active": r.Notify(t.Context(), Identity, Account), "Notify #sync": r.Notify(t.Context(), Sync),
	} {
		if !errors.Is(err, ErrDeactivated) || !strings.Contains(err.Error(), "moved away, to "+to) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.Head() != before || r.MovedTo() != to {
		t.Errorf("the head is %+v, was %+v; the account is at %q", r.Head(), before, r.MovedTo())
	}
}

func TestDeactivate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	before := r.Head()
	if notified, err := r.Activate(t.Context()); notified || err != nil || r.Head() != before {
		t.Errorf("an active account: %v, %v", notified, err)
	}
	deactivate(t, r, elsewhere, true)
	deactivate(t, r, elsewhere, false)
	checkRefused(t, r, elsewhere)
	r = openAgain(t, r)
	checkRefused(t, r, elsewhere)
	deactivate(t, r, elsewhere, false)
	want := []string{"#identity", "#account deactivated"}
	if got := kindsAfter(t, r, before.Seq); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if now := r.Head(); now.Commit != before.Commit {
		t.Errorf("Deactivate made a commit: %+v", now)
	}

	deactivate(t, r, elsewhere+" with another key", true)
	if err := r.Notify(t.Context(), Identity, Deactivated); err != nil {
		t.Errorf("second notification: %v", err)
	}
	if got := kindsAfter(t, r, before.Seq); !slices.Equal(got, slices.Concat(want, want, want)) {
		t.Errorf("events %q", got)
	}
	r.Close()
	if st, err := ReadStatus(cfg); err != nil || st.MovedTo != elsewhere+" with another key" {
		t.Errorf("status: %q, %v", st.MovedTo, err)
	}

	r = openRepo(t, cfg)
	away := r.Head()
	if notified, err := r.Activate(t.Context()); !notified || err != nil || r.MovedTo() != "" {
		t.Errorf("activate: %v, %v; at %q", notified, err, r.MovedTo())
	}
	if got, want := kindsAfter(t, r, away.Seq), []string{"#identity", "#account active", "#sync"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	back := r.Head()
	if msg := decodeSync(t, events(t, r, away.Seq)[2]); msg.Rev != back.Rev || back.Rev <= before.Rev || back.Data != before.Data {
		t.Errorf("#sync of %s, the head is %+v after %+v", msg.Rev, back, before)
	}
	apply(t, r, note(Create, "a", "1"))
	if err := r.Health(); err != nil {
		t.Error(err)
	}
	msg := decodeCommit(t, events(t, r, back.Seq)[0])
	if _, err := indigo.VerifyCommitMessage(t.Context(), msg); err != nil || *msg.Since != back.Rev || cid.Cid(*msg.PrevData) != back.Data {
		t.Errorf("the commit after that: since %s on %s, %v", *msg.Since, msg.PrevData, err)
	}
	r = openAgain(t, r)
	if r.MovedTo() != "" {
		t.Errorf("after a restart: the account is at %q", r.MovedTo())
	}
}

// On a full disk the events of a move can't be logged, and no write is accepted
// either; the next call logs them.
func TestDeactivateOnFullDisk(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	disk := &full{FS: cfg.FS, free: 2 << 30}
	cfg.FS, cfg.Reserve = disk, 0
	r := initRepo(t, cfg, profile())
	before := r.Head()
	disk.set(1)
	if notified, err := r.Deactivate(t.Context(), elsewhere); notified || !errors.Is(err, ErrNoSpace) {
		t.Errorf("notified %v, %v; want ErrNoSpace", notified, err)
	}
	if _, err := r.Apply(t.Context(), nil, nil); !errors.Is(err, ErrDeactivated) {
		t.Errorf("Apply: %v", err)
	}
	disk.set(2 << 30)
	if r = openAgain(t, r); r.MovedTo() != "" {
		t.Errorf("the account is at %q without a logged event", r.MovedTo())
	}
	deactivate(t, r, elsewhere, true)
	disk.set(16 << 20) // enough to open the database
	r = openAgain(t, r)
	deactivate(t, r, elsewhere, false) // nothing has to be written
	if notified, err := r.Activate(t.Context()); notified || !errors.Is(err, ErrNoSpace) {
		t.Errorf("activate: notified %v, %v; want ErrNoSpace", notified, err)
	}
	disk.set(2 << 30)
	r = openAgain(t, r)
	checkRefused(t, r, elsewhere)
	if got, want := kindsAfter(t, r, before.Seq), []string{"#identity", "#account deactivated"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// An account whose writes are suspended is not activated.
func TestActivateSuspended(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	deactivate(t, r, elsewhere, true)
	r.Suspend(errors.New("another key"))
	head := r.Head()
	if notified, err := r.Activate(t.Context()); notified || !errors.Is(err, ErrSuspended) || r.Head() != head {
		t.Errorf("notified %v, %v", notified, err)
	}
	r.Suspend(nil)
	if notified, err := r.Activate(t.Context()); !notified || err != nil {
		t.Errorf("notified %v, %v", notified, err)
	}
}
