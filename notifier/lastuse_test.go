package notifier

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// pullAll records a pull of each of the images.
func (r *rig) pullAll(repository string, images int) {
	for i := range images {
		p := image(fmt.Sprint(i), 1)
		r.Pull(Pull{Method: "GET", Repository: repository, Digest: p.Digest, MediaType: p.MediaType, Client: "198.51.100.1"})
	}
}

// The time from which on the last use of images is known stays the same as long as no
// events are lost, and begins anew when they may be.
func TestUsesSince(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stopped func(r *rig) // while the registry is stopped
		lost    bool
	}{
		"restart":              {func(*rig) {}, false},
		"other public options": {func(r *rig) { r.options = "other" }, false},
		"other data folder":    {func(r *rig) { r.folder = "other" }, true},
		"journal is removed":   {func(r *rig) { removeAll(r.t, filepath.Join(r.dir, "journal")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.stop()
			r.folder, r.options = "folder", "options"
			r.open(nil)
			since := r.counter.UsesSince()
			for i := range 3 {
				p := image(fmt.Sprint(i), 1).as("oss/app", "v1")
				r.push(p)
				r.pullAll("oss/app", i+1)
				r.complete(r.intendDelete(p))
				r.drain()
				r.stop()
				r.open(nil)
			}
			if got := r.counter.UsesSince(); !got.Equal(since) {
				t.Fatalf("the uses are known since %v, want %v", got, since)
			}
			r.stop()
			restarted := time.Now()
			test.stopped(r)
			r.open(nil)
			if got := r.counter.UsesSince(); got.Before(restarted) == test.lost {
				t.Errorf("the uses are known since %v, after a restart at %v", got, restarted)
			}
		})
	}
}

func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// Pulls that the journal drops before they are counted are uses that are not known.
func TestUsesLostAtJournalLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 64 << 10
	r.open(nil)
	r.pullAll("oss/app", 3)
	r.drain()
	since := r.counter.UsesSince()
	r.full.Store(true)
	var lost time.Time // some pulls before it
	for r.journal.Cursor(journal.Pulls, sink.Counters) <= r.counter.Latest(uint8(journal.Pulls)) {
		lost = time.Now()
		r.pullAll("oss/app", 100)
	}
	r.until("the dropped events are deleted", func() bool { return r.journal.Status(journal.Pulls).Bytes < 2*r.limit })
	r.full.Store(false)
	r.drain()
	if got := r.counter.UsesSince(); got.Before(lost) {
		t.Errorf("the uses are known since %v, but pulls until %v were lost; at first it was %v", got, lost, since)
	}
}
