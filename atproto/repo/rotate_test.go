package repo

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
)

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
	head, err := Rotate(renewed, old)
	if err != nil {
		t.Fatal(err)
	}
	if head.Data != before.Head.Data || head.Rev <= before.Head.Rev {
		t.Errorf("%+v after %+v", head, before.Head)
	}
	if again, err := Rotate(renewed, old); err != nil || again != head {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "is not signed by this key") {
		t.Errorf("with the old key: %v", err)
	}
	stranger := cfg
	stranger.Key = testKey(t)
	if _, err := Rotate(stranger, old); err == nil || !strings.Contains(err.Error(), "is not signed by this key") {
		t.Errorf("from a key that it no longer has: %v", err)
	}
	if _, lines := verify(t, renewed, old); len(lines) != 0 {
		t.Errorf("wrong: %q", lines)
	}
	if _, lines := verify(t, renewed); len(lines) == 0 {
		t.Error("signatures of a key that nobody named are taken")
	}

	r := openRepo(t, renewed)
	all := events(t, r, before.Head.Seq)
	if got := kinds(t, renewed, r); !slices.Equal(got[len(got)-2:], []string{"#identity", "#sync"}) || len(all) != 2 {
		t.Errorf("events %q", got)
	}
	var msg comatproto.SyncSubscribeRepos_Sync
	_, body, err := splitFrame(all[1].Frame)
	if err != nil {
		t.Fatal(err)
	}
	if err := decodeBody(&msg, body); err != nil || msg.Rev != head.Rev {
		t.Errorf("#sync of %s, %v; the head is %s", msg.Rev, err, head.Rev)
	}
	w := note(Create, "after", "rotation")
	apply(t, r, w)
	m.apply([]Write{w})
	checkStore(t, r, m)
}

// While the head is dated ahead a key is not changed, and the repository stays
// as it is.
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
	if _, err := Rotate(renewed, old); !errors.Is(err, ErrClock) {
		t.Errorf("got %v, want ErrClock", err)
	}
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("wrong: %q", lines)
	}
}
