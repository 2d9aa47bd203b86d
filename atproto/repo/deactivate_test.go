package repo

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

const place = "https://pds.example.com"

// said is the kinds of events after a sequence number; of #account, also what
// it says.
func said(t testing.TB, r *Repo, after uint64) (kinds []string) {
	t.Helper()
	for _, e := range events(t, r, after) {
		kind, body, err := splitFrame(e.Frame)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "#account" {
			var msg comatproto.SyncSubscribeRepos_Account
			if err := decodeBody(&msg, body); err != nil || msg.Did != testDID || msg.Active != (msg.Status == nil) {
				t.Fatalf("%+v, %v", msg, err)
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
	if told, err := r.Deactivate(t.Context(), to); told != want || err != nil {
		t.Errorf("to %s: told %v, %v; want %v", to, told, err, want)
	}
}

// refuses checks that nothing can be written, and that the reason is told.
func refuses(t testing.TB, r *Repo, to string) {
	t.Helper()
	before := r.Head()
	_, applied := r.Apply(t.Context(), []Write{note(Create, "refused", "1")}, nil)
	_, paced := r.Paced(nil).Apply(t.Context(), []Write{note(Create, "refused", "1")}, nil)
	_, renewed := r.Renew(t.Context(), Sync)
	_, uploaded := r.Upload(t.Context(), strings.NewReader("blob"), 10, func([]byte) string { return "text/plain" })
	for what, err := range map[string]error{
		"Apply": applied, "Paced": paced, "Renew": renewed, "Upload": uploaded, "Health": r.Health(), "Writable": r.Writable(),
		"Notify active": r.Notify(t.Context(), Identity, Account), "Notify #sync": r.Notify(t.Context(), Sync),
	} {
		if !errors.Is(err, ErrDeactivated) || !strings.Contains(err.Error(), "moved away, to "+to) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.Head() != before || r.Place() != to {
		t.Errorf("the head is %+v, was %+v; the account is at %q", r.Head(), before, r.Place())
	}
}

func TestDeactivate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	before := r.Head()
	if told, err := r.Activate(t.Context()); told || err != nil || r.Head() != before {
		t.Errorf("an active account: %v, %v", told, err)
	}
	deactivate(t, r, place, true)
	deactivate(t, r, place, false)
	refuses(t, r, place)
	r = openAgain(t, r)
	refuses(t, r, place)
	deactivate(t, r, place, false)
	want := []string{"#identity", "#account deactivated"}
	if got := said(t, r, before.Seq); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if now := r.Head(); now.Commit != before.Commit {
		t.Errorf("moving away makes a commit: %+v", now)
	}

	deactivate(t, r, place+" with another key", true)
	if err := r.Notify(t.Context(), Identity, Deactivated); err != nil {
		t.Errorf("telling it again: %v", err)
	}
	if got := said(t, r, before.Seq); !slices.Equal(got, slices.Concat(want, want, want)) {
		t.Errorf("events %q", got)
	}
	r.Close()
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("wrong: %q", lines)
	}
	if st, err := ReadStatus(cfg); err != nil || st.Place != place+" with another key" {
		t.Errorf("status: %q, %v", st.Place, err)
	}

	r = openRepo(t, cfg)
	away := r.Head()
	if told, err := r.Activate(t.Context()); !told || err != nil || r.Place() != "" {
		t.Errorf("activate: %v, %v; at %q", told, err, r.Place())
	}
	if got, want := said(t, r, away.Seq), []string{"#identity", "#account active", "#sync"}; !slices.Equal(got, want) {
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
	if r.Place() != "" {
		t.Errorf("after a restart it is at %q", r.Place())
	}
	r.Close()
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("wrong: %q", lines)
	}
}

// A disk without room keeps the log from telling of the move, and takes no
// write either; the next attempt tells.
func TestDeactivateOnFullDisk(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	disk := &full{FS: cfg.FS, free: 2 << 30}
	cfg.FS, cfg.Reserve = disk, 0
	r := initRepo(t, cfg, profile())
	before := r.Head()
	disk.set(1)
	if told, err := r.Deactivate(t.Context(), place); told || !errors.Is(err, ErrNoSpace) {
		t.Errorf("told %v, %v; want ErrNoSpace", told, err)
	}
	if _, err := r.Apply(t.Context(), nil, nil); !errors.Is(err, ErrDeactivated) {
		t.Errorf("a write: %v", err)
	}
	disk.set(2 << 30)
	if r = openAgain(t, r); r.Place() != "" {
		t.Errorf("at %q, though nobody was told", r.Place())
	}
	deactivate(t, r, place, true)
	disk.set(16 << 20) // enough to open it
	r = openAgain(t, r)
	deactivate(t, r, place, false) // nothing is left to write
	if told, err := r.Activate(t.Context()); told || !errors.Is(err, ErrNoSpace) {
		t.Errorf("activate: told %v, %v; want ErrNoSpace", told, err)
	}
	disk.set(2 << 30)
	r = openAgain(t, r)
	refuses(t, r, place)
	if got, want := said(t, r, before.Seq), []string{"#identity", "#account deactivated"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// While the identity is another's, an account that comes back does not say so.
func TestActivateSuspended(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	deactivate(t, r, place, true)
	r.Suspend(errors.New("another key"))
	head := r.Head()
	if told, err := r.Activate(t.Context()); told || !errors.Is(err, ErrSuspended) || r.Head() != head {
		t.Errorf("told %v, %v", told, err)
	}
	r.Suspend(nil)
	if told, err := r.Activate(t.Context()); !told || err != nil {
		t.Errorf("told %v, %v", told, err)
	}
}

// Where the account is outlives what makes the repository anew.
func TestDeactivatedAnew(t *testing.T) {
	t.Parallel()
	for name, anew := range map[string]func(*testing.T, Config) error{
		"restored": func(t *testing.T, cfg Config) error {
			_, err := Restore(t.Context(), cfg, nil, bytes.NewReader(exported(t, cfg)))
			return err
		},
		"repaired": func(t *testing.T, cfg Config) error {
			tamper(t, cfg, func(_ *store.Store, b *pebble.Batch) {
				b.DeleteRange([]byte(prefixIndex), after(prefixIndex), nil)
			})
			_, err := Repair(t.Context(), RepairConfig{Config: cfg})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 20)
			r := openRepo(t, cfg)
			deactivate(t, r, place, true)
			r.Close()
			if err := anew(t, cfg); err != nil {
				t.Fatal(err)
			}
			r = openRepo(t, cfg)
			refuses(t, r, place)
			if _, err := r.Activate(t.Context()); err != nil {
				t.Error(err)
			}
			r.Close()
			sound(t, cfg, m)
		})
	}
}
