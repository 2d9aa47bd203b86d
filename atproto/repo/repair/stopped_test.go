package repair

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Tests of package repo's operations on a stopped repo, and of the moves of
// an account, which Verify checks.

func TestRotate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 20)
	before, _ := verify(t, cfg)
	old, err := cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	renewed := cfg
	renewed.Key = testKey(t)
	head, err := repo.Rotate(renewed, old)
	if err != nil {
		t.Fatal(err)
	}
	if head.Data != before.Head.Data || head.Rev <= before.Head.Rev {
		t.Errorf("%+v after %+v", head, before.Head)
	}
	if again, err := repo.Rotate(renewed, old); err != nil || again != head {
		t.Errorf("second rotation: %+v, %v", again, err)
	}
	if _, err := repo.Open(cfg); !errors.Is(err, repo.ErrKey) {
		t.Errorf("with the old key: %v", err)
	}
	stranger := cfg
	stranger.Key = testKey(t)
	if _, err := repo.Rotate(stranger, old); !errors.Is(err, repo.ErrKey) {
		t.Errorf("rotation from a previous key: %v", err)
	}
	if _, lines := verify(t, renewed, old); len(lines) != 0 {
		t.Errorf("problems: %q", lines)
	}
	if _, lines := verify(t, renewed); len(lines) == 0 {
		t.Error("signatures of an unknown key are accepted")
	}

	r := openRepo(t, renewed)
	if got := kinds(t, r, before.Head.Seq); !slices.Equal(got, []string{"#identity", "#sync"}) {
		t.Errorf("events %q", got)
	}
	message, err := frame.Decode(events(t, r, before.Head.Seq)[1].Frame)
	if msg, ok := message.(*comatproto.SyncSubscribeRepos_Sync); err != nil || !ok || msg.Rev != head.Rev {
		t.Errorf("#sync %+v, %v; the head is %s", message, err, head.Rev)
	}
	r.Close()
	// Verified with both keys, since the events before are signed by the old one.
	w := note(repo.Create, "after", "rotation")
	r = openRepo(t, renewed)
	apply(t, r, w)
	m.apply([]repo.Write{w})
	checkRecords(t, r, m)
	r.Close()
	if report, lines := verify(t, renewed, old); len(lines) != 0 || int(report.Records) != len(m) {
		t.Errorf("%d records, want %d; problems: %q", report.Records, len(m), lines)
	}
}

// While the head is ahead of the clock, Rotate fails and changes nothing.
func TestRotateClock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 3)
	old, err := cfg.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	renewed := cfg
	renewed.Key, renewed.Now = testKey(t), fixedClock(time.Now().Add(-time.Hour))
	if _, err := repo.Rotate(renewed, old); !errors.Is(err, repo.ErrClock) {
		t.Errorf("got %v, want ErrClock", err)
	}
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("problems: %q", lines)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 250)
	st, err := repo.ReadStatus(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, _ := verify(t, cfg)
	if st.Head != report.Head || st.Events != report.Events || st.EventBytes == 0 || st.OldestEvent == 0 || st.DroppedEvent != 0 || st.DiskBytes == 0 || st.Ahead > time.Minute {
		t.Errorf("%+v; verify: %+v", st, report)
	}
	want := []repo.Collection{{NSID: "app.bsky.actor.profile", Records: 1}, {NSID: "com.example.note", Records: 250}}
	if !slices.Equal(st.Collections, want) {
		t.Errorf("collections %v, want %v", st.Collections, want)
	}
	other := cfg
	other.Key = testKey(t)
	if _, err := repo.ReadStatus(other); !errors.Is(err, repo.ErrKey) {
		t.Errorf("another key: %v", err)
	}
	other.Dir = "none"
	if _, err := repo.ReadStatus(other); !errors.Is(err, repo.ErrNotExist) {
		t.Errorf("no repo: %v", err)
	}
}

const elsewhere = "https://pds.example.com"

// The events of an account that moves away and back follow from each other.
func TestVerifyMoved(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 20)
	r := openRepo(t, cfg)
	if _, err := r.Deactivate(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("moved away: problems: %q", lines)
	}
	r = openRepo(t, cfg)
	if _, err := r.Activate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	checkSound(t, cfg, m)
}

// Restore and Repair keep the host to which the account has moved.
func TestMovedIsKept(t *testing.T) {
	t.Parallel()
	for name, rebuild := range map[string]func(*testing.T, repo.Config) error{
		"restored": func(t *testing.T, cfg repo.Config) error {
			_, err := Restore(t.Context(), cfg, nil, bytes.NewReader(exported(t, cfg)))
			return err
		},
		"repaired": func(t *testing.T, cfg repo.Config) error {
			tamper(t, cfg, func(_ *store.Store, b store.Batch) {
				b.DeleteRange([]byte(layout.PrefixIndex), layout.End(layout.PrefixIndex))
			})
			_, err := Repair(t.Context(), Config{Config: cfg})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 20)
			r := openRepo(t, cfg)
			if _, err := r.Deactivate(t.Context(), elsewhere); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if err := rebuild(t, cfg); err != nil {
				t.Fatal(err)
			}
			r = openRepo(t, cfg)
			if _, err := r.Apply(t.Context(), nil, nil); !errors.Is(err, repo.ErrDeactivated) || r.MovedTo() != elsewhere {
				t.Errorf("at %q, a write: %v", r.MovedTo(), err)
			}
			if _, err := r.Activate(t.Context()); err != nil {
				t.Error(err)
			}
			r.Close()
			checkSound(t, cfg, m)
		})
	}
}
