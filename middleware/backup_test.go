package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/collected"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// After each part of the data folder is copied, an image is pushed and handled by all sinks.
// The copy is nevertheless one that recovery can continue from: no cursor in the journal is
// ahead of the state, the state is ahead of neither the journal nor the repo, the repo has
// nothing of pushes that the journal does not have, and a note of garbage-collect that becomes
// an event meanwhile is in one of both.
func TestBackupOrder(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	key := filepath.Join(data, "hold.key")
	if _, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: key, Hostname: "localhost:5000", Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	registry, r := serveRuntime(t, configuration.Parameters{
		"data": data, "public": []any{"**"}, "reserve": "1MiB", "hold": map[string]any{"hostname": "localhost:5000"},
	})
	pushed := 0
	push := func() {
		pushed++
		m := registry.image("oss/app", fmt.Sprint(pushed), v1.MediaTypeImageManifest)
		if a := registry.push("oss/app", fmt.Sprint("v", pushed), m); a.status != http.StatusCreated {
			t.Fatalf("push: %d %s", a.status, a.body)
		}
		for end := time.Now().Add(time.Minute); r.pending() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("events stay pending")
			}
		}
	}
	push()
	noteCollected(t, r.options.CollectedDir())
	var parts []string
	r.copied = func(part string) {
		parts = append(parts, part)
		push()
		if part == "journal" {
			if err := r.takeCollected(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "backup")
	if _, err := (&backups{r: r, ctx: t.Context()}).write(t.Context(), admin.BackupRequest{Dir: dir}, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(parts); !slices.Equal(parts, []string{"journal", "notes", "repo", "state"}) {
		t.Fatalf("copied are %q", parts)
	}
	c := openCopy(t, dir)
	counted, err := counter.ReadLatest(c.db, uint8(journal.Pushes))
	if err != nil {
		t.Fatal(err)
	}
	batched, err := records.LastBatched(c.state)
	if err != nil {
		t.Fatal(err)
	}
	for name, position := range map[string]uint64{sink.Counters: counted, records.Name: batched} {
		if cursor := c.journal.Cursor(journal.Pushes, name); cursor > position {
			t.Errorf("the cursor of %s is %d, and the state has the events up to %d", name, cursor, position)
		}
	}
	events := c.journal.Status(journal.Pushes)
	if reached := max(counted, batched); events.Last < reached || events.First > min(counted, batched)+1 {
		t.Errorf("the journal has the events %d to %d, and the state those up to %d and %d", events.First, events.Last, counted, batched)
	}
	head, layers := c.account(t, filepath.Join(dir, "hold"), key)
	if noted, err := c.state.Get(state.AccountRevision); err != nil || head < string(noted) {
		t.Errorf("the repo is at %s, and the state at %s, %v", head, noted, err)
	}
	if layers > int64(events.Last) {
		t.Errorf("the repo has records of %d images, and the journal %d pushes", layers, events.Last)
	}
	notes, err := collected.Take(filepath.Join(dir, "collected"), func([]collected.Note) error { return nil })
	if err != nil || notes.Notes != 1 {
		t.Errorf("the copy has %d notes of garbage-collect, want one; %v", notes.Notes, err)
	}
}

// serveRuntime serves a registry, and returns its runtime as well.
func serveRuntime(t *testing.T, options configuration.Parameters) (*testRegistry, *runtime) {
	t.Helper()
	host := configure(t, observedYAML, func(c *configuration.Configuration) {
		c.Log.Level = "error"
		c.Middleware["repository"] = []configuration.Middleware{{Name: Name, Options: options}}
	})
	var r *runtime
	h, err := open(host, func(host *configuration.Configuration) (p parts, err error) {
		o := &opener{host: host, log: newLog(t.Output(), host.Log), metrics: prometheus.NewRegistry(), events: sink.NewMetrics(), requests: NewMetrics()}
		if o.options, _, err = config.FromRegistry(host); err != nil {
			return parts{}, err
		}
		if r, err = o.openRuntime(); err != nil {
			return parts{}, err
		}
		return o.parts(recorder{r.notifier}, r.permit(), r.mounts, r.close), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return serve(t, host, h.Wrap, nil), r
}

// noteCollected notes the delete of a manifest, as garbage-collect does.
func noteCollected(t *testing.T, dir string) {
	t.Helper()
	run, err := collected.Begin(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Add(collected.Note{Repository: "oss/app", Digest: digestOf("collected")}); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
}

// copiedStores has the stores of a backup open.
type copiedStores struct {
	journal *journal.Journal
	db      *store.Store
	state   state.Store
}

func openCopy(t *testing.T, dir string) copiedStores {
	t.Helper()
	j, err := journal.OpenReadOnly(journal.Config{Dir: filepath.Join(dir, "journal"), Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(state.Config{Dir: filepath.Join(dir, "state"), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(j.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return copiedStores{j, db, state.OnPebble(db)}
}

// account returns the revision of the copied repo and the number of its layer records.
func (copiedStores) account(t *testing.T, dir, key string) (rev string, layers int64) {
	t.Helper()
	cfg, _, err := hold.Offline(hold.RepoConfig{Dir: dir, KeyFile: key, Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	st, err := repo.ReadStatus(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.Collections {
		if c.NSID == lexicon.NSIDLayer {
			layers = c.Records
		}
	}
	return st.Head.Rev, layers
}
