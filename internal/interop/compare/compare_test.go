package compare

import (
	"cmp"
	"context"
	"errors"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

const root = "../../.."

// TestCompare runs all rows in order; later rows depend on the records of earlier ones.
func TestCompare(t *testing.T) {
	theirs, ours := start(t)
	for _, table := range []struct {
		name string
		rows []row
	}{
		{"applyWrites", applyWritesRows()},
		{"batches", batchRows()},
		{"dataModel", dataModelRows()},
		{"requests", requestRows()},
		{"records", recordRows()},
		{"posts", postRows()},
		{"reading", readingRows()},
		{"blobs", blobRows()},
		{"sync", syncRows()},
		{"server", serverRows()},
		{"sessions", sessionRows()},
	} {
		t.Run(table.name, func(t *testing.T) {
			for _, r := range table.rows {
				t.Run(r.name, func(t *testing.T) { compare(t, theirs, ours, r) })
			}
		})
	}
	for _, more := range []struct {
		name    string
		compare func(*testing.T, *side, *side)
	}{
		{"concurrent requests", compareConcurrent},
		{"firehose", compareFirehose},
		{"first events", compareFirstEvents},
		{"invalid cursors", compareInvalidCursors},
		{"service tokens", acceptServiceToken},
		{"account client", useAccount},
		{"account profile", editProfile},
		{"stats records", publishStats},
		{"deactivated", compareDeactivated},
		{"login limit", compareLoginLimit}, // last, because it exhausts the attempts of the address
	} {
		t.Run(more.name, func(t *testing.T) { more.compare(t, theirs, ours) })
	}
}

// compareLoginLimit sends wrong passwords until the limit is reached. The hold then
// still checks one a second, and refuses faster attempts.
func compareLoginLimit(t *testing.T, theirs, ours *side) {
	const limit = 30 // in 5 minutes, including the attempts of earlier rows
	r := row{
		post: createSession, as: "anonymous", body: `{"identifier":"{did}","password":"wrong"}`,
		header: map[string]string{"X-Ratelimit-Bypass": "no"},
	}
	wrong, limited := answer{401, "AuthenticationRequired"}, answer{429, "RateLimitExceeded"}
	for _, sd := range []*side{theirs, ours} {
		for range limit {
			if got := sd.ask(t, r).answer; got != wrong && got != limited {
				t.Errorf("%s: %v", sd.Name, got)
			}
		}
		var group sync.WaitGroup
		refused := make(chan reply, limit)
		for range limit {
			group.Go(func() {
				if got := sd.ask(t, r); got.answer != wrong {
					refused <- got
				}
			})
		}
		group.Wait()
		close(refused)
		if len(refused) < limit/2 {
			t.Errorf("%s: %d of %d excess attempts refused", sd.Name, len(refused), limit)
		}
		for got := range refused {
			if got.answer != limited || got.header.Get("Retry-After") == "" {
				t.Errorf("%s: %v, Retry-After %q, want %v", sd.Name, got.answer, got.header.Get("Retry-After"), limited)
			}
		}
	}
}

// start starts both servers with login limits. The reference's limit can be bypassed
// with a header, so that both can receive the same requests.
func start(t *testing.T) (theirs, ours *side) {
	t.Helper()
	reference, tidings, program, data := servers(t, pds.StartTidings, "PDS_RATE_LIMITS_ENABLED=true")
	theirs, ours = newSide(t, reference), newSide(t, tidings)
	theirs.activate = func(active bool) error { return theirs.manage(t, active) }
	ours.activate = func(active bool) error {
		return errors.Join(tidings.Stop(), pds.SetMovedTo(data, map[bool]string{false: movedTo}[active], ""), tidings.Resume(t.Context(), program, data))
	}
	return theirs, ours
}

// servers starts the reference with additional environment variables, builds the
// program and starts a hold with a data folder.
func servers(t *testing.T, startHold func(context.Context, string, string) (*pds.Server, error), env ...string) (reference, hold *pds.Server, program, data string) {
	t.Helper()
	if os.Getenv("TIDINGS_INTEROP") == "" {
		t.Skip("needs the reference PDS: run `make interop`, or set TIDINGS_INTEROP=1")
	}
	ctx, dir := t.Context(), t.TempDir()
	if err := pds.Install(ctx, root); err != nil {
		t.Fatal(err)
	}
	reference, err := pds.StartReference(ctx, root, filepath.Join(dir, "reference"), env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, reference) })
	if program, err = pds.Build(ctx, root, dir); err != nil {
		t.Fatal(err)
	}
	data = filepath.Join(dir, "tidings.d")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if hold, err = startHold(ctx, program, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, hold) })
	return reference, hold, program, data
}

func stop(t *testing.T, s *pds.Server) {
	if err := s.Stop(); err != nil {
		t.Errorf("stop %s: %v", s.Name, err)
	}
}

func compare(t *testing.T, theirs, ours *side, r row) {
	if differs := r.ours != nil || r.more != "" || r.less != ""; differs != (r.why != "") {
		t.Fatal("a row needs why if and only if the hold differs")
	}
	their, our := theirs.ask(t, r), ours.ask(t, r)
	if their.answer != r.want {
		t.Errorf("reference: %v (%.300s), want %v", their.answer, their.message, r.want)
	}
	want := *cmp.Or(r.ours, &r.want)
	if our.answer != want {
		t.Errorf("hold: %v (%.300s), want %v; reference: %v (%.300s)", our.answer, our.message, want, their.answer, their.message)
		return
	}
	if their.moved != r.moves {
		t.Errorf("reference: head changed: %v, want %v", their.moved, r.moves)
	}
	if moves := r.moves && our.status == http.StatusOK; our.moved != moves {
		t.Errorf("hold: head changed: %v, want %v", our.moved, moves)
	}
	if their.message != our.message {
		t.Logf("reference: %.300s", their.message)
		t.Logf("hold:      %.300s", our.message)
	}
	if their.status != our.status {
		return
	}
	if got, want := mediaType(our), mediaType(their); got != want && len(their.body) > 0 {
		t.Errorf("hold: Content-Type %q, reference: %q", got, want)
	}
	compareBody(t, theirs, ours, r, their, our)
}

func mediaType(r reply) string {
	m, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	return m
}

func compareBody(t *testing.T, theirs, ours *side, r row, their, our reply) {
	t.Helper()
	if r.car != "" {
		for _, one := range []struct {
			*side
			reply
		}{{theirs, their}, {ours, our}} {
			got, err := summary(one.body, one.vars["head"])
			if err != nil || got != r.car {
				t.Errorf("%s: %s %v, want %s", one.Name, got, err, r.car)
			}
		}
		return
	}
	if their.err != "" { // the messages may differ
		for _, member := range without(shape(our.json), "$.error $.message") {
			t.Errorf("hold: unexpected member %s", member)
		}
		return
	}
	theirShape, ourShape := without(shape(their.json), r.less), without(shape(our.json), r.more)
	sameLines(t, "body", theirShape, ourShape)
}

func sameLines(t *testing.T, what string, theirs, ours []string) {
	t.Helper()
	for _, line := range theirs {
		if !slices.Contains(ours, line) {
			t.Errorf("hold: %s lacks %s; it has\n%s", what, line, strings.Join(ours, "\n"))
		}
	}
	for _, line := range ours {
		if !slices.Contains(theirs, line) {
			t.Errorf("hold: %s has %s, unlike the reference; it has\n%s", what, line, strings.Join(theirs, "\n"))
		}
	}
}
