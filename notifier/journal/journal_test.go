package journal_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

func TestJournal(t *testing.T) {
	t.Parallel()
	t.Run("operating system", func(t *testing.T) {
		t.Parallel()
		journaltest.Run(t, journal.Open)
	})
	t.Run("disk in memory", func(t *testing.T) {
		race.Skip(t, "the journal has the same goroutines on any disk")
		t.Parallel()
		disk := journaltest.NewDisk()
		journaltest.Run(t, func(cfg journal.Config) (*journal.Journal, error) {
			cfg.FS = disk
			return journal.Open(cfg)
		})
	})
}

var (
	ctx     = context.Background()
	streams = []journal.Stream{journal.Pushes, journal.Pulls}
)

// open opens a journal with small segments.
func open(t *testing.T, disk *journaltest.Disk) *journal.Journal {
	t.Helper()
	return openWith(t, journal.Config{Dir: "j", FS: disk, SegmentSize: 600})
}

func openWith(t *testing.T, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t *testing.T, j *journal.Journal, s journal.Stream, n int) {
	t.Helper()
	for range n {
		if _, err := j.Append(ctx, s, 1, []byte("payload")); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
}

func seqs(t *testing.T, j *journal.Journal, s journal.Stream) (out []uint64) {
	t.Helper()
	for after := uint64(0); ; after = out[len(out)-1] {
		entries, err := j.Read(s, after, 1<<30, 1<<30)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		if len(entries) == 0 {
			return out
		}
		for _, e := range entries {
			out = append(out, e.Seq)
		}
	}
}

func upTo(n int) (out []uint64) {
	for i := range n {
		out = append(out, uint64(i+1))
	}
	return out
}

func lastSegment(disk *journaltest.Disk, s journal.Stream) string {
	var last string
	for _, name := range disk.Files() {
		if strings.HasPrefix(filepath.Base(name), s.String()+"-") {
			last = name
		}
	}
	return last
}

// TestFolder checks the names and modes of real files.
func TestFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "journal")
	j := openWith(t, journal.Config{Dir: dir})
	add(t, j, journal.Pushes, 1)
	add(t, j, journal.Pulls, 1)
	j.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if want := []string{"journal.json", "pulls-0000000001.seg", "pushes-0000000001.seg"}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
}
