package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// manifests is the storage of a registry with one repository.
type manifests struct {
	stored.Reader
	payloads map[string][]byte // by digest
}

func newManifests(n int) *manifests {
	m := &manifests{payloads: map[string][]byte{}}
	for i := range n {
		layer := digest.FromString(fmt.Sprint(i))
		payload := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":1}]}`, layer)
		m.payloads[digest.FromBytes(payload).String()] = payload
	}
	return m
}

func (m *manifests) Repositories(_ context.Context, visit func(string) error) error {
	return visit("oss/app")
}

func (m *manifests) Manifests(_ context.Context, _ string, visit func(string) error) error {
	for digest := range m.payloads {
		if err := visit(digest); err != nil {
			return err
		}
	}
	return nil
}

func (m *manifests) Manifest(_ context.Context, _, digest string) (string, []byte, error) {
	return "application/vnd.oci.image.manifest.v1+json", m.payloads[digest], nil
}

// rig is a Backfill on real stores, in a bubble of synctest. The records sink processes each
// event at once.
type rig struct {
	*Backfill
	t        *testing.T
	journal  *journal.Journal
	appended []time.Time // of the job's events
}

const journalLimit = 4000

// inBubble runs test while the backfill of n manifests runs.
func inBubble(t *testing.T, n int, test func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		db, err := state.Open(state.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t}
		r.journal, err = journal.Open(journal.Config{Dir: "j", FS: journaltest.NewDisk(), Limit: journalLimit, SegmentSize: journalLimit / 8})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{records.Name, "other"} {
			if err := r.journal.Register(journal.Pushes, name); err != nil {
				t.Fatal(err)
			}
		}
		log := slog.New(slog.DiscardHandler)
		r.Backfill, err = New(Config{
			State: state.OnPebble(db), Storage: stored.NewChecked(newManifests(n), log), Ledger: ledger.New(state.OnPebble(db)), Journal: r.journal,
			OwnerOf:   func(context.Context, string) owners.Owner { return owners.Owner{DID: "did:web:hold.test"} },
			Published: func(string) (bool, error) { return true, nil },
			Purged:    func(string) (bool, error) { return false, nil },
			Forgotten: func(string, string) (bool, error) { return false, nil },
			Append: func(ctx context.Context, _ event.Event, _ []byte, _ int) (uint64, error) {
				r.appended = append(r.appended, time.Now())
				return r.append(ctx, records.Name, "other")
			},
			Ready: func() error { return nil }, Now: time.Now, Log: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := errors.Join(<-ended, r.journal.Close(), db.Close()); err != nil {
				t.Error(err)
			}
		})
		test(r)
	})
}

// append appends an event that some sinks process at once.
func (r *rig) append(ctx context.Context, sinks ...string) (seq uint64, err error) {
	if seq, err = r.journal.Append(ctx, journal.Pushes, r.journal.LastOrder()+1, make([]byte, 100)); err != nil {
		return 0, err
	}
	for _, name := range sinks {
		err = errors.Join(err, r.journal.SetCursor(journal.Pushes, name, seq))
	}
	return seq, err
}

func (r *rig) begin(request Request) {
	r.t.Helper()
	if _, err := r.Begin(request); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) status() Job {
	r.t.Helper()
	j, err := r.Status()
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

// done waits until the job is done, for a limited time.
func (r *rig) done(within time.Duration) Job {
	r.t.Helper()
	for end := time.Now().Add(within); r.status().Phase != Done; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not done within %s: %+v", within, r.status())
		}
	}
	return r.status()
}

// The events of a job have at least the distance that its rate asks for, also after a time
// in which it could append none, and the estimate says so.
func TestRate(t *testing.T) {
	t.Parallel()
	for rate, distance := range map[float64]time.Duration{0.5: 2 * time.Second, 4: 250 * time.Millisecond} {
		inBubble(t, 40, func(r *rig) {
			began := time.Now()
			r.begin(Request{Rate: rate})
			time.Sleep(10*distance + distance/2)
			if j := r.status(); j.Recorded != 11 || j.Ends.Sub(began) < 34*distance || j.Ends.Sub(began) > 46*distance {
				t.Errorf("rate %v: %d manifests recorded after 10.5 times the distance, the end after %s", rate, j.Recorded, j.Ends.Sub(began))
			}
			if j := r.done(time.Hour); j.Recorded != 40 || j.Missing != 40 {
				t.Errorf("rate %v: %+v", rate, j)
			}
			for i := 1; i < len(r.appended); i++ {
				if got := r.appended[i].Sub(r.appended[i-1]); got < distance || got > distance+time.Millisecond {
					t.Fatalf("rate %v: event %d follows after %s, want %s", rate, i, got, distance)
				}
			}
		})
	}
}

// Without a rate a job does not wait.
func TestNoRate(t *testing.T) {
	t.Parallel()
	inBubble(t, 40, func(r *rig) {
		began := time.Now()
		r.begin(Request{})
		r.done(time.Hour)
		if took := r.appended[39].Sub(began); took > time.Second {
			t.Errorf("40 manifests took %s", took)
		}
	})
}

// While the journal is half full, a job appends nothing and says why. It goes on when the
// sink that was behind has processed its events.
func TestHalfFullJournal(t *testing.T) {
	t.Parallel()
	inBubble(t, 10, func(r *rig) {
		for !r.journal.HalfFull(journal.Pushes) {
			if _, err := r.append(r.t.Context(), records.Name); err != nil {
				t.Fatal(err)
			}
		}
		r.begin(Request{})
		for range 3 {
			time.Sleep(time.Minute)
			if j := r.status(); j.Recorded != 0 || len(r.appended) != 0 || !strings.Contains(j.Waiting, "the journal is half full") {
				t.Fatalf("%d manifests recorded, waiting: %q", j.Recorded, j.Waiting)
			}
		}
		if err := r.journal.SetCursor(journal.Pushes, "other", r.journal.Status(journal.Pushes).Last); err != nil {
			t.Fatal(err)
		}
		if j := r.done(time.Minute); j.Recorded != 10 || j.Waiting != "" {
			t.Errorf("%d manifests recorded, waiting: %q", j.Recorded, j.Waiting)
		}
	})
}
