package notifier

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce"
)

// lines is the log of a rig, which several goroutines write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func dry(cfg *announce.Config) *announce.Config {
	c := *cfg
	c.DryRun = true
	return &c
}

// In a dry run nothing is written to the account. Posts are logged, with the cooldowns of
// posts, and the pushes say so. Afterwards the same image is announced if it is pushed
// again, and what waits is announced.
func TestAnnounceDryRun(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, dry(policy()))
	log := &lines{}
	r.Notifier.announce.Log = slog.New(slog.NewTextHandler(log, nil))
	before := r.repo.Head().Rev
	first := image("first", 1).as("oss/app", "v1")
	r.push(first)
	m.Pass(20 * time.Second)
	r.mustStep()
	r.push(image("second", 1).as("oss/app", "v2"))
	m.Pass(20 * time.Second)
	r.mustStep()
	if got := r.texts(); len(got) != 0 || r.repo.Head().Rev != before {
		t.Errorf("the account was written: %q", got)
	}
	if n := log.count("dry run: not posted"); n != 1 || log.count(`text="oss/app:v1 was pushed`) != 1 {
		t.Errorf("%d posts logged:\n%s", n, log.buf.String())
	}
	if got := r.announced(1); got.Reason != "dry run" || got.PostURI != "" {
		t.Errorf("result of v1: %+v", got)
	}
	if got := r.announced(2); !got.Waiting {
		t.Errorf("v2 does not wait for the cooldown: %+v", got)
	}
	r.reopenCopy(policy())
	m.Pass(10 * time.Minute)
	r.mustStep()
	r.push(first)
	m.Pass(10 * time.Minute)
	r.mustStep()
	if got := strings.Join(r.texts(), ","); got != "oss/app:v2 was pushed,oss/app:v1 was pushed" {
		t.Errorf("after the dry run: %q", got)
	}
}

// A post that was not yet written when the dry run began is written after it, if it is not
// too old by then. In between it is neither written nor lost.
func TestAnnounceDryRunPending(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Pass(20 * time.Second)
	r.account.fail(lostRequest)
	if err := r.announceStep(); err == nil {
		t.Fatal("the write does not fail")
	}
	r.reopenCopy(dry(policy()))
	r.push(image("b", 1).as("oss/other", "v1"))
	m.Pass(20 * time.Second)
	r.mustStep()
	if got := r.texts(); len(got) != 0 {
		t.Errorf("written in a dry run: %q", got)
	}
	r.reopenCopy(policy())
	r.mustStep()
	if got := strings.Join(r.texts(), ","); got != "oss/app:v1 was pushed" {
		t.Errorf("after the dry run: %q", got)
	}
}

// In a dry run a post stays when its image is deleted, and is deleted afterwards.
func TestAnnounceDryRunDelete(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Retract = true
	r, m := newManualRig(t, cfg)
	a := image("a", 1).as("oss/app", "v1")
	r.push(a)
	m.Pass(20 * time.Second)
	r.mustStep()
	r.reopenCopy(dry(cfg))
	r.delete(a)
	m.Pass(time.Minute)
	r.mustStep()
	posts := func() int { return len(r.posts()) }
	if got := posts(); got != 1 {
		t.Errorf("%d posts in the dry run, want 1", got)
	}
	r.reopenCopy(cfg)
	m.Pass(time.Minute)
	r.mustStep()
	if got := posts(); got != 0 {
		t.Errorf("%d posts after the dry run, want none", got)
	}
}
