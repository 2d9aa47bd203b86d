package notifier

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/recent"
	"github.com/tidings-dev/tidings/notifier/state"
)

// policy is a configuration like the default.
func policy() *announce.Config {
	return &announce.Config{Collect: 20 * time.Second, Cooldown: 10 * time.Minute, MaxAge: time.Hour, PerDay: 50}
}

// newManualRig is a rig whose announce sink runs only in announceStep, with a clock that
// only Pass moves. It is noon.
func newManualRig(t testing.TB, cfg *announce.Config) (*rig, *clocktest.Machine) {
	t.Helper()
	race.Skip(t, "the announce sink runs on the goroutine of the test")
	r := newRig(t, nil)
	r.stop()
	m := clocktest.New()
	noon := m.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour)
	m.Pass(noon.Sub(m.Now()))
	r.now, r.elapsed, r.manual = m.Now, m.Elapsed, true
	r.open(cfg)
	return r, m
}

// announceStep lets the announce sink do what it can do now.
func (r *rig) announceStep() error {
	ctx := context.Background()
	if err := r.stores.Verify(ctx); err != nil {
		return err
	}
	for {
		after := r.journal.Cursor(journal.Pushes, announce.Name)
		entries, err := r.journal.Read(journal.Pushes, after, handleEvents, handleBytes)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			_, err := r.Notifier.announce.Due(ctx)
			return err
		}
		var events []event.Sequenced
		for _, entry := range entries {
			e, err := recent.Decode(entry.Seq, entry.Payload)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		done, wake, err := r.Notifier.announce.Handle(ctx, events)
		if done > 0 {
			move := func() error { return r.journal.SetCursor(journal.Pushes, announce.Name, events[done-1].Seq) }
			if err := r.crash.point(move); err != nil {
				return err
			}
		}
		if err != nil || done == 0 && wake.After(r.now()) {
			return err
		}
	}
}

// mustStep is announceStep without faults.
func (r *rig) mustStep() {
	r.t.Helper()
	if err := r.announceStep(); err != nil {
		r.t.Fatal(err)
	}
}

// texts returns the first line of each post, the oldest first.
func (r *rig) texts() (lines []string) {
	r.t.Helper()
	for _, p := range r.posts() {
		line, _, _ := strings.Cut(p["text"].(string), "\n")
		lines = append(lines, line)
	}
	return lines
}

// announced is the result of the push with a sequence number.
func (r *rig) announced(seq uint64) (result pushrow.Announce) {
	r.t.Helper()
	if _, err := pushrow.Get(r.state, seq, pushrow.AnnouncePart, &result); err != nil {
		r.t.Fatal(err)
	}
	return result
}

var (
	moreVersions  = regexp.MustCompile(`and ([0-9]+) more versions? were pushed`)
	summaryImages = regexp.MustCompile(`^([0-9]+) images? (?:was|were) pushed (?:at|between)`)
)

// versionsOf is how many versions a post is about, by its text.
func versionsOf(text string) (n int, summary bool) {
	if m := summaryImages.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n, true
	}
	if m := moreVersions.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n + 1, false
	}
	return 1, false
}

// A crasher ends the process before or after one of its commits, calls or moves of the
// cursor. A nil *crasher does not.
type crasher struct {
	left    int  // operations until then; 0: it does not crash
	applied bool // the last operation is applied
	dead    bool
}

var errCrashed = errors.New("the process has crashed")

func (c *crasher) point(do func() error) error {
	if c == nil {
		return do()
	}
	if c.dead {
		return errCrashed
	}
	if c.left--; c.left != 0 {
		return do()
	}
	c.dead = true
	if c.applied {
		if err := do(); err != nil {
			return err
		}
	}
	return errCrashed
}

type crashStore struct {
	state.Store
	crash *crasher
}

func (s crashStore) Commit(b *state.Batch, d state.Durability) error {
	return s.crash.point(func() error { return s.Store.Commit(b, d) })
}

type crashPublisher struct {
	delivery.Publisher
	crash *crasher
}

func (p crashPublisher) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (result repo.Result, err error) {
	err = p.crash.point(func() error {
		result, err = p.Publisher.Apply(ctx, writes, swap)
		return err
	})
	return result, err
}

// reopenCopy opens a copy of the folder as a crash has left it: the journal and the state
// are copied while they are open.
func (r *rig) reopenCopy(cfg *announce.Config) {
	r.t.Helper()
	dir := r.t.TempDir()
	for _, name := range []string{"journal", "state"} {
		r.until("the copy is complete", func() bool { // Pebble deletes files in the background
			to := filepath.Join(dir, name)
			return os.RemoveAll(to) == nil && os.CopyFS(to, os.DirFS(filepath.Join(r.dir, name))) == nil
		})
	}
	if r.crash != nil {
		*r.crash = crasher{}
	}
	r.stop()
	if err := os.CopyFS(filepath.Join(dir, "hold"), os.DirFS(filepath.Join(r.dir, "hold"))); err != nil {
		r.t.Fatal(err)
	}
	r.dir = dir
	r.open(cfg)
}

// killedStep is announceStep in a process that may be killed in it, up to three times. The
// first of all steps is tried until it is killed early. It returns how often that happened.
func (r *rig) killedStep(random *rand.Rand, cfg *announce.Config, before int) (kills int) {
	r.t.Helper()
	for kills < 3 && (before+kills == 0 || random.IntN(3) > 0) {
		r.crash.left, r.crash.applied = 1+random.IntN(6), random.IntN(2) == 0
		if before+kills == 0 {
			r.crash.left = 1 + random.IntN(3)
		}
		if r.announceStep() == nil && !r.crash.dead {
			break
		}
		kills++
		r.reopenCopy(cfg)
	}
	r.crash.left = 0
	r.mustStep()
	return kills
}
