package pds

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// records are what getRecord and putRecord of a server read and write, with the
// swaps of the reference PDS.
type records struct {
	mu    sync.Mutex
	texts map[string]string // by collection
	puts  int
	race  func() // called between a read and the write that follows; may be nil
}

func recordsOf(r *rig) *records {
	k := &records{texts: map[string]string{}}
	r.server.on(getRecord, func(w http.ResponseWriter, q *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		text, ok := k.texts[q.FormValue("collection")]
		if !ok || q.FormValue("rkey") != "self" || q.FormValue("repo") != alice {
			refuse(w, 400, "RecordNotFound", "Could not locate record: at://"+alice)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"uri":"at://` + alice + `/x/self","cid":"` + cidOf(text) + `","value":` + text + `}`))
	})
	r.server.on(putRecord, k.put)
	return k
}

func cidOf(text string) string { return block.CIDOf([]byte(text)).String() }

func (k *records) put(w http.ResponseWriter, q *http.Request) {
	if k.race != nil {
		k.race()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.puts++
	var in struct {
		Repo, Collection, RKey string
		Record, SwapRecord     json.RawMessage
	}
	if err := json.NewDecoder(q.Body).Decode(&in); err != nil || in.Repo != alice || in.RKey != "self" {
		refuse(w, 400, "InvalidRequest", "bad input")
		return
	}
	want := "null"
	if text, ok := k.texts[in.Collection]; ok {
		want = `"` + cidOf(text) + `"`
	}
	if string(in.SwapRecord) != want {
		refuse(w, 400, "InvalidSwap", "Record was at "+want)
		return
	}
	k.texts[in.Collection] = string(in.Record)
	reply(w, 200, map[string]string{"uri": "at://x", "cid": cidOf(string(in.Record))})
}

func (k *records) set(collection, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.texts[collection] = text
}

// expect compares a record with a JSON text; members are in the order of their names.
func (k *records) expect(t *testing.T, collection, want string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if got := k.texts[collection]; got != want {
		t.Errorf("%s is\n%s, want\n%s", collection, got, want)
	}
}

func TestSetBot(t *testing.T) {
	t.Parallel()
	const bot = `{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"bot"}]}`
	for name, c := range map[string]struct{ before, after string }{ // after "": not written
		"no profile": {"", `{"$type":"app.bsky.actor.profile","createdAt":"2026-11-01T12:00:00.000Z","labels":` + bot + `}`},
		"no labels":  {`{"$type":"app.bsky.actor.profile"}`, `{"$type":"app.bsky.actor.profile","labels":` + bot + `}`},
		"null":       {`{"$type":"app.bsky.actor.profile","labels":null}`, `{"$type":"app.bsky.actor.profile","labels":` + bot + `}`},
		"other members": {
			`{"$type":"app.bsky.actor.profile","avatar":{"$type":"blob","size":12.0},"far":123456789012345678901234567890,"future":{"b":[1e3,null],"a":true}}`,
			`{"$type":"app.bsky.actor.profile","avatar":{"$type":"blob","size":12.0},"far":123456789012345678901234567890,"future":{"b":[1e3,null],"a":true},"labels":` + bot + `}`,
		},
		"other labels": {
			`{"labels":{"$type":"com.atproto.label.defs#selfLabels","more":1.50,"values":[{"val":"!no-unauthenticated","x":1},"odd"]}}`,
			`{"labels":{"$type":"com.atproto.label.defs#selfLabels","more":1.50,"values":[{"val":"!no-unauthenticated","x":1},"odd",{"val":"bot"}]}}`,
		},
		"set already": {`{"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"x"},{"val":"bot"}]}}`, ""},
	} {
		r := newRig(t)
		k := recordsOf(r)
		if c.before != "" {
			k.set(lexicon.NSIDProfile, c.before)
		}
		changed, err := r.SetBot(t.Context(), true)
		if err != nil || changed != (c.after != "") {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
		if c.after == "" {
			k.expect(t, lexicon.NSIDProfile, c.before)
		} else {
			k.expect(t, lexicon.NSIDProfile, c.after)
		}
		if again, err := r.SetBot(t.Context(), true); again || err != nil {
			t.Errorf("%s: the second time: changed %v, %v", name, again, err)
		}
		if want := map[bool]int{true: 1, false: 0}[changed]; k.puts != want {
			t.Errorf("%s: %d writes, want %d", name, k.puts, want)
		}
		if p, err := r.Profile(t.Context()); err != nil || !p.Bot || p.Hide {
			t.Errorf("%s: profile %+v, %v", name, p, err)
		}
	}
}

func TestUnsetBot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := recordsOf(r)
	if changed, err := r.SetBot(t.Context(), false); changed || err != nil {
		t.Errorf("no profile: changed %v, %v", changed, err)
	}
	k.set(lexicon.NSIDProfile, `{"displayName":"A","labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"bot"},{"val":"x"}]}}`)
	if changed, err := r.SetBot(t.Context(), false); !changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	k.expect(t, lexicon.NSIDProfile, `{"displayName":"A","labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"x"}]}}`)
}

// Labels that this program does not know are not replaced.
func TestUnknownLabels(t *testing.T) {
	t.Parallel()
	for _, labels := range []string{`{"$type":"com.example.labels","values":[]}`, `{"$type":"com.atproto.label.defs#selfLabels"}`, `[]`, `"bot"`} {
		r := newRig(t)
		k := recordsOf(r)
		k.set(lexicon.NSIDProfile, `{"labels":`+labels+`}`)
		if changed, err := r.SetBot(t.Context(), true); changed || err == nil || k.puts > 0 {
			t.Errorf("%s: changed %v, %v, %d writes", labels, changed, err, k.puts)
		}
	}
}

func TestSetHide(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := recordsOf(r)
	set := func(hide, wantChanged bool, want string) {
		t.Helper()
		if changed, err := r.SetHide(t.Context(), hide); changed != wantChanged || err != nil {
			t.Errorf("SetHide(%v): changed %v, %v", hide, changed, err)
		}
		k.expect(t, lexicon.NSIDContentVisibility, want)
	}
	set(false, false, "") // the meaning of a missing record
	set(true, true, `{"$type":"app.bsky.actor.contentVisibilityDeclaration","hideFromAlgorithmicRecommendations":true}`)
	set(true, false, `{"$type":"app.bsky.actor.contentVisibilityDeclaration","hideFromAlgorithmicRecommendations":true}`)
	if p, err := r.Profile(t.Context()); err != nil || p.Bot || !p.Hide {
		t.Errorf("profile %+v, %v", p, err)
	}
	k.set(lexicon.NSIDContentVisibility, `{"hideFromAlgorithmicRecommendations":true,"new":[1.0]}`)
	set(false, true, `{"$type":"app.bsky.actor.contentVisibilityDeclaration","hideFromAlgorithmicRecommendations":false,"new":[1.0]}`)
}

// A change that another program makes between our read and our write is kept.
func TestEditRace(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"created": "", "changed": `{"displayName":"0"}`} {
		r := newRig(t)
		k := recordsOf(r)
		if before != "" {
			k.set(lexicon.NSIDProfile, before)
		}
		races := 0
		k.race = func() {
			if races++; races < 3 {
				k.set(lexicon.NSIDProfile, `{"displayName":"`+strings.Repeat("x", races)+`"}`)
			}
		}
		if changed, err := r.SetBot(t.Context(), true); !changed || err != nil {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
		k.expect(t, lexicon.NSIDProfile, `{"displayName":"xx","labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"bot"}]}}`)
		if b := r.Status().Budget; b.HourLeft != b.HourLimit-3*putPoints {
			t.Errorf("%s: %d of %d points are left after 3 writes", name, b.HourLeft, b.HourLimit)
		}
	}
}

func TestEditAlwaysLosesTheRace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := recordsOf(r)
	k.race = func() { k.set(lexicon.NSIDProfile, `{"displayName":"`+strings.Repeat("x", k.puts)+`"}`) }
	changed, err := r.SetBot(t.Context(), true)
	var e *Error
	if changed || !errors.As(err, &e) || e.Name != "InvalidSwap" || k.puts != maxEdits {
		t.Errorf("changed %v, %v, %d writes", changed, err, k.puts)
	}
}

// An edit keeps to the budget, and to what a 429 asks for.
func TestEditBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := recordsOf(r)
	limited := func(what string) {
		t.Helper()
		var e *Error
		if changed, err := r.SetBot(t.Context(), true); changed || !errors.As(err, &e) || e.Outcome != Limited || e.Until.IsZero() {
			t.Errorf("%s: changed %v, %v", what, changed, err)
		}
	}
	r.cfg.Budget = Budget{Hour: 2*putPoints - 1}
	r.reopen()
	if _, err := r.SetHide(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	limited("budget spent")
	if k.puts != 1 {
		t.Errorf("%d writes, want 1", k.puts)
	}
	r.cfg.Budget = Budget{Hour: -1, Day: -1}
	r.reopen()
	r.server.on(putRecord, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		refuse(w, 429, "RateLimitExceeded", "Rate Limit Exceeded")
	})
	limited("429")
	r.reopen()
	limited("after a restart")
	if n := r.server.called(putRecord); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}
