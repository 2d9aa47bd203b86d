package remote

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/faultproxy"
	"github.com/tidings-dev/tidings/internal/race"
)

// Each fault, before and after the hold applied the call, at a hold that knows keys and
// one that does not. Records are written once, whatever happens.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, kind := range []faultproxy.Kind{faultproxy.Cut, faultproxy.Truncate, faultproxy.BadGateway, faultproxy.HTML, faultproxy.RateLimit, faultproxy.RetryAfter, faultproxy.RateLimitReset} {
		for _, delivered := range []bool{false, true} {
			if delivered && !kind.Delivers() {
				continue
			}
			f := faultproxy.Fault{Kind: kind, Delivered: delivered, Method: lexicon.NSIDNotifyManifest}
			if kind == faultproxy.RetryAfter || kind == faultproxy.RateLimitReset {
				f.For = time.Minute
			}
			for _, keys := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, keys %t", f, keys), func(t *testing.T) {
					t.Parallel()
					testFault(t, f, keys)
				})
			}
		}
	}
}

func testFault(t *testing.T, f faultproxy.Fault, keys bool) {
	for _, restarted := range []bool{false, true} {
		r := newRig(t, remotetest.Config{Keys: keys, Audiences: []string{"", "#atcr_hold"}})
		first := func(attempt int) {
			if attempt == 1 {
				r.server.Start(f)
			} else if restarted {
				r.restart()
			}
		}
		lost := f.Kind.Delivers()
		want, wantPulls := "answered", 1
		if lost && !keys { // a count is lost rather than doubled
			want, wantPulls = "uncertain", 0
			if f.Delivered {
				wantPulls = 1
			}
		}
		if state, _ := r.deliver(r.pull(), first); state != want || r.counts().Pulls != wantPulls {
			t.Errorf("pull, restarted %t: got %s, %d pulls, want %s, %d", restarted, state, r.counts().Pulls, want, wantPulls)
		}
		state, attempts := r.deliver(r.push(2), first)
		want, wantAttempts := "answered", 2
		if lost && f.Delivered && !keys {
			want, wantAttempts = "applied", 1
		}
		if state != want || attempts != wantAttempts || r.digests() != "0 1" || r.counts().Pushes != 1 {
			t.Errorf("push, restarted %t: got %s after %d attempts, records %q, %+v, want %s after %d", restarted, state, attempts, r.digests(), r.counts(), want, wantAttempts)
		}
	}
}

// A crash after a call was sent: the next process knows nothing but the call.
func TestWrittenAfterCrash(t *testing.T) {
	t.Parallel()
	for _, keys := range []bool{false, true} {
		r := newRig(t, remotetest.Config{Keys: keys})
		push, pull := r.push(2), r.pull()
		r.notify(push)
		r.notify(pull)
		r.restart()
		if _, err := r.Written(t.Context(), push); r.pass(err).Outcome != pds.Limited {
			t.Errorf("a call of the last process may still be processed, got %v", err)
		}
		wantPush, wantPull := Applied, Uncertain
		if keys {
			wantPush, wantPull = Repeat, Repeat
		}
		if w := r.written(push); w.Next != wantPush || !keys && len(w.Records) != 2 {
			t.Errorf("keys %t: push: got %+v", keys, w)
		}
		if w := r.written(pull); w.Next != wantPull {
			t.Errorf("keys %t: pull: got %+v", keys, w)
		}
		if r.counts() != (remotetest.Counts{Pushes: 1, Pulls: 1}) || r.digests() != "0 1" {
			t.Errorf("keys %t: the question had an effect: %+v, %q", keys, r.counts(), r.digests())
		}
	}
}

func TestPartlyWritten(t *testing.T) {
	t.Parallel()
	for _, written := range []int{0, 1, 3, 4} {
		r := newRig(t, remotetest.Config{})
		state, _ := r.deliver(r.push(4), func(attempt int) {
			if attempt == 1 {
				r.server.Interrupt(written)
			}
		})
		want := "answered"
		if written == 4 {
			want = "applied" // as far as can be known: it is not counted
		}
		if got := r.digests(); got != "0 1 2 3" || state != want {
			t.Errorf("%d layers written: got %s with records %q, want %s", written, state, got, want)
		}
	}
	// Interrupted twice.
	r := newRig(t, remotetest.Config{})
	state, attempts := r.deliver(r.push(4), func(attempt int) {
		if attempt < 3 {
			r.server.Interrupt(1)
		}
	})
	if got := r.digests(); got != "0 1 2 3" || state != "answered" || attempts != 3 || r.counts().Pushes != 1 {
		t.Errorf("got %s after %d attempts, records %q, %+v", state, attempts, got, r.counts())
	}
}

func TestUncertain(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.push(2))
	r.Pass(settle)
	private := r.push(2)
	private.Input.Visibility = lexicon.VisibilityPrivate
	long := r.push(1)
	long.Input.Manifest.Layers[0].Digest = "sha512:" + strings.Repeat("a", 128) // it is not sent
	for name, c := range map[string]Call{"pull": r.pull(), "private": private, "no layers": r.push(0), "no valid layers": long} {
		if w := r.written(c); w.Next != Uncertain || w.Records != nil {
			t.Errorf("%s: got %+v", name, w)
		}
	}
}

// A hold forgets keys after some days.
func TestOldKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	push := r.push(2)
	r.notify(push)
	r.Pass(keyLife - time.Second)
	if w := r.written(push); w.Next != Repeat {
		t.Errorf("got %+v", w)
	}
	r.Pass(time.Second)
	if w := r.written(push); w.Next != Applied {
		t.Errorf("got %+v", w)
	}
}

func TestOtherRecords(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	for _, cfg := range []remotetest.Config{{}, {Ascending: true}, {Ahead: 30 * time.Second}, {Ahead: -30 * time.Second}} {
		r := newRig(t, cfg)
		r.Pass(settle)
		other := r.push(1)
		other.Input.ManifestDigest = digest("b")
		for range pageLimit { // a page of older records
			r.notify(other)
		}
		r.notify(r.push(2)) // the same manifest, pushed before
		r.Pass(5 * time.Second)
		push := r.push(2)
		if w := r.written(push); w.Next != Repeat || len(w.Call.Input.Manifest.Layers) != 2 {
			t.Errorf("%+v: records of an earlier push: got %+v", cfg, w)
		}
		r.notify(push)
		for range pageLimit + 50 { // more than a page of newer records
			r.notify(other)
		}
		if w := r.written(push); w.Next != Applied || len(w.Records) != 2 {
			t.Errorf("%+v: got %+v", cfg, w)
		}
		other.Since = r.Machine.Now().Add(time.Minute)
		if w := r.written(other); w.Next != Repeat {
			t.Errorf("%+v: got %+v", cfg, w)
		}
	}
}

// While the hold is away after a lost answer, no second call gets lost.
func TestOutageLosesOneCall(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.pull())
	r.server.Start(faultproxy.Fault{Kind: faultproxy.BadGateway})
	for i := range 5 {
		_, err := r.Notify(t.Context(), r.pull())
		if r.pass(err); Lost(err) != (i == 0) {
			t.Errorf("call %d: got %v", i, err)
		}
		if _, err := r.Written(t.Context(), r.push(1)); err == nil {
			t.Errorf("call %d: a hold that does not answer cannot be asked", i)
		} else {
			r.pass(err)
		}
	}
	r.server.End()
	r.notify(r.pull())
	if got := r.counts().Pulls; got != 2 {
		t.Errorf("got %d pulls", got)
	}
}

func TestWrittenNeedsAnAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.notify(r.push(1))
	_, err := r.Written(t.Context(), r.push(1))
	if failed := r.pass(err); !failed.Planned || !strings.Contains(err.Error(), "the hold may still be processing a call") {
		t.Errorf("after the start: %+v", failed)
	}
	r.Pass(settle)
	for _, kind := range []faultproxy.Kind{faultproxy.Cut, faultproxy.BadGateway, faultproxy.HTML, faultproxy.RateLimit} {
		r.server.Start(faultproxy.Fault{Kind: kind})
		w, err := r.Written(t.Context(), r.push(1))
		if failed := r.pass(err); failed.Outcome != pds.Suspended && failed.Outcome != pds.Limited || failed.Planned {
			t.Errorf("%s: got %+v, %v", kind, w, err)
		}
		r.server.End()
	}
	if w := r.written(r.push(1)); w.Next == Uncertain {
		t.Errorf("got %+v", w)
	}
}

// The list of newer records has an end, so that a call from long ago is not asked for
// without end.
func TestTooManyNewerRecords(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	push := r.push(2)
	r.notify(push)
	r.Pass(time.Minute)
	many := r.push(maxPages * pageLimit / 4)
	many.Input.ManifestDigest = digest("b")
	for i := range 4 {
		if w := r.written(push); w.Next != Applied {
			t.Errorf("%d newer records: got %+v", i*len(many.Input.Manifest.Layers), w)
		}
		r.notify(many)
	}
	if w := r.written(push); w.Next != Uncertain {
		t.Errorf("got %+v", w)
	}
}
