package notifier

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// withReferences is a configuration with documents, whose posts have no pictures.
func withReferences() *announce.Config {
	cfg := withDocuments()
	cfg.Collect, cfg.Card, cfg.Retract = 20*time.Second, false, true
	return cfg
}

// checkReferences checks that there are so many documents, each with a post that it names and one
// update, and that no reference is left to be written.
func (r *rig) checkReferences(want int) {
	r.t.Helper()
	r.checkDocuments(want)
	if n := len(r.posts()); n != want {
		r.t.Errorf("got %d posts, want %d", n, want)
	}
	for key := range r.stored(lexicon.NSIDDocument) {
		if n := r.updates.of(lexicon.NSIDDocument + "/" + key); n != 1 {
			r.t.Errorf("document %s was updated %d times, want once", key, n)
		}
	}
	if err := r.state.Scan(state.Prefix(state.PostRefs), func(key, _ []byte) error { return fmt.Errorf("%q is left", key) }); err != nil {
		r.t.Error(err)
	}
}

// The process is killed before or after each of its commits and calls. Each document is updated
// once, and each image has one post.
func TestReferenceKilled(t *testing.T) {
	t.Parallel()
	cfg := withReferences()
	r, m := newManualRig(t, cfg)
	r.crash = &crasher{}
	r.reopenCopy(cfg)
	r.mustStep() // writes the publication
	pushed := 0
	for _, applied := range []bool{false, true} {
		for at := 1; ; at++ {
			pushed++
			r.push(image(fmt.Sprint(pushed), 1).as("oss/app", fmt.Sprint("v", pushed)))
			m.Pass(time.Minute)
			r.crash.left, r.crash.applied = at, applied
			err := r.announceStep()
			if r.crash.dead {
				r.reopenCopy(cfg)
				r.mustStep()
				continue
			}
			if err != nil || at < 7 { // the outbox and its end, the two calls, the row, the cursor
				t.Errorf("applied %v: the step has only %d operations, %v", applied, at-1, err)
			}
			r.crash.left = 0
			break
		}
	}
	m.Pass(time.Minute)
	r.mustStep()
	r.checkReferences(pushed)
}

// An update that fails, applied or not, is repeated later and delays nothing; what is deleted
// meanwhile has no reference, and is not created again.
func TestReferenceLater(t *testing.T) {
	t.Parallel()
	p := image("a", 1).as("oss/app", "v1")
	for name, tc := range map[string]struct {
		do   func(r *rig, m *clocktest.Machine)
		want int // documents
	}{
		"nothing happens":       {func(*rig, *clocktest.Machine) {}, 1},
		"the image is deleted":  {func(r *rig, _ *clocktest.Machine) { r.delete(p) }, 0},
		"the post is withdrawn": {func(r *rig, _ *clocktest.Machine) { r.withdraw(r.listed(nil)[0].URI) }, 0},
		"the delete fails": {func(r *rig, _ *clocktest.Machine) {
			r.account.fail(lostRequest)
			r.withdraw(r.listed(nil)[0].URI)
		}, 0},
		"a purge": {func(r *rig, _ *clocktest.Machine) { r.purge("oss/app") }, 0},
		"another push": {func(r *rig, m *clocktest.Machine) {
			r.push(image("b", 1).as("oss/app", "v2"))
			m.Pass(30 * time.Second)
			r.mustStep()
			if n := len(r.posts()); n != 2 {
				r.t.Errorf("%d posts before the next attempt, want 2", n)
			}
		}, 2},
	} {
		for fault, applied := range map[fault]int{lostRequest: 0, lostAnswer: 1} {
			t.Run(fmt.Sprint(name, applied), func(t *testing.T) {
				t.Parallel()
				r, m := newManualRig(t, withReferences())
				r.mustStep() // writes the publication
				r.push(p)
				m.Pass(time.Minute)
				r.account.fail(noFault, fault) // of the call with both records, and of the update
				r.mustStep()
				key := onlyRecord(r.stored(lexicon.NSIDDocument)).RKey
				if n := r.updates.of(lexicon.NSIDDocument + "/" + key); n != applied || len(r.posts()) != 1 {
					t.Fatalf("%d updates and %d posts, want %d and 1", n, len(r.posts()), applied)
				}
				tc.do(r, m)
				for range 3 {
					m.Pass(time.Minute)
					r.mustStep()
				}
				r.checkReferences(tc.want)
				if n := r.updates.of(lexicon.NSIDDocument + "/" + key); tc.want == 0 && n != applied {
					t.Errorf("%d updates of the deleted document, want %d", n, applied)
				}
			})
		}
	}
}

// An update that the account refuses is given up, and the post stays as it is.
func TestReferenceRefused(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, withReferences())
	r.mustStep() // writes the publication
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.account.refusedUpdate = lexicon.NSIDDocument
	r.mustStep()
	r.account.refusedUpdate = ""
	m.Pass(time.Hour)
	r.mustStep()
	document := fieldsOf(t, onlyRecord(r.stored(lexicon.NSIDDocument)))
	if document["bskyPostRef"] != nil || len(r.posts()) != 1 || len(r.letters()) != 0 {
		t.Errorf("the document is %v with %d posts, dead letters %v", document, len(r.posts()), r.letters())
	}
	if got := r.documentCounts(); got["written"] != 1 || got["unreferenced"] != 1 || got["referenced"] != 0 {
		t.Errorf("got %v", got)
	}
}

// A state that is restored from a backup may have a post in the outbox whose document has got the
// reference since. Neither record is written again.
func TestReferenceRestored(t *testing.T) {
	t.Parallel()
	cfg := withReferences()
	r, m := newManualRig(t, cfg)
	r.crash = &crasher{}
	r.reopenCopy(cfg)
	r.mustStep() // writes the publication
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.crash.left, r.crash.applied = 3, true // the call with both records, after two commits
	if err := r.announceStep(); err == nil || len(r.posts()) != 1 {
		t.Fatalf("%d posts, %v, want that the process ends after the post", len(r.posts()), err)
	}
	r.reopenCopy(cfg)
	backup := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(r.dir, "state"))); err != nil {
		t.Fatal(err)
	}
	r.mustStep()
	r.checkReferences(1)
	before := onlyRecord(r.stored(lexicon.NSIDDocument)).RKey
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(r.dir, "state"), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	r.open(cfg)
	r.mustStep()
	r.checkReferences(1)
	v, ok, err := versions.New(r.state).Get("oss/app", "v1")
	if err != nil || !ok || v.Document != before {
		t.Errorf("the version is %+v, %v, %v, want the document %s", v, ok, err, before)
	}
}
