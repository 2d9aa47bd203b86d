package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// refusal is a status 400 that does not say which write is refused.
func refusal() *pds.Error {
	return &pds.Error{Method: "com.atproto.repo.applyWrites", Status: 400, Name: "InvalidRequest", Outcome: pds.Refused}
}

// answerIf returns what refuses each call that has one of the writes with err.
func answerIf(err error, bad ...repo.Write) func([]repo.Write) error {
	paths := map[string]bool{}
	for _, w := range bad {
		paths[path(w)] = true
	}
	return func(writes []repo.Write) error {
		if slices.ContainsFunc(writes, func(w repo.Write) bool { return paths[path(w)] }) {
			return err
		}
		return nil
	}
}

// deliver delivers a batch as a sink does: it tries again after an error, at most tries
// times, and continues without a write that is refused. It returns the indexes of those.
func deliver(t testing.TB, r *Repo, writes []repo.Write, tries int) (refused []int) {
	t.Helper()
	left := make([]int, len(writes))
	for i := range left {
		left[i] = i
	}
	for fresh := true; ; fresh = false {
		err := r.Deliver(t.Context(), pick(writes, left), fresh)
		if err == nil {
			return refused
		}
		if invalid := (*repo.WriteError)(nil); errors.As(err, &invalid) {
			if want := path(writes[left[invalid.Index]]); want != invalid.Path {
				t.Fatalf("write %d is %s, the error says %s", invalid.Index, want, invalid.Path)
			}
			refused = append(refused, left[invalid.Index])
			left = slices.Delete(left, invalid.Index, invalid.Index+1)
			continue
		}
		if tries--; tries == 0 {
			t.Fatalf("not delivered: %v", err)
		}
	}
}

// check checks that each write except those with the indexes was applied exactly once.
func (a *account) check(t testing.TB, writes []repo.Write, except ...int) {
	t.Helper()
	want := map[string]int{}
	for i, w := range writes {
		if !slices.Contains(except, i) {
			want[path(w)] = 1
		}
	}
	if !maps.Equal(a.applied, want) {
		t.Errorf("%d writes were applied, want each of %d once", len(a.applied), len(want))
	}
	for i, w := range writes {
		_, _, err := a.repo.Get(w.Collection, w.RKey)
		exists, wanted := err == nil, (w.Action == repo.Create) != slices.Contains(except, i)
		if exists != wanted {
			t.Errorf("record of write %d exists: %t, want %t", i, exists, wanted)
		}
	}
}

// Whatever the answers of the PDS are, and whether the calls were applied or not, each write
// is applied exactly once.
func TestDeliver(t *testing.T) {
	t.Parallel()
	errs := map[string]error{"interrupted": context.Canceled, "status 500": failure(), "status 400": refusal()}
	for _, o := range []pds.Outcome{pds.Unknown, pds.Refused, pds.TooLarge, pds.Limited, pds.Suspended} {
		errs[o.String()] = outcome(o)
	}
	for name, err := range errs {
		for _, applied := range []bool{false, true} {
			for _, n := range []int{1, 2, 7, MaxWrites, 450} {
				for _, action := range []repo.Action{repo.Create, repo.Delete} {
					var failed *pds.Error
					if n <= 2 && !applied && errors.As(err, &failed) && !failed.Temporary() {
						continue // a write is refused; see TestDeliverRefused
					}
					t.Run(fmt.Sprintf("%s, applied %t, %d of %s", name, applied, n, action), func(t *testing.T) {
						t.Parallel()
						a := newAccount(t)
						writes := creates(t, n)
						if action == repo.Delete {
							a.put(t, writes...)
							writes = deletes(writes)
						}
						lost := answer{err, applied}
						a.answers = []answer{lost, {}, lost, lost}
						if refused := deliver(t, NewRepo(a), writes, 10); len(refused) > 0 {
							t.Errorf("refused: %v", refused)
						}
						a.check(t, writes)
					})
				}
			}
		}
	}
}

// What an error says is returned, so that the sink can pause.
func TestDeliverPauses(t *testing.T) {
	t.Parallel()
	for _, o := range []pds.Outcome{pds.Limited, pds.Suspended, pds.Unknown} {
		a := newAccount(t)
		failed := outcome(o)
		failed.Until = time.Unix(1_750_000_000, 0)
		a.answers = []answer{{}, {err: failed}}
		p, paused := PauseOf(NewRepo(a).Deliver(t.Context(), creates(t, 450), true))
		if paused && !p.Until.Equal(failed.Until) {
			t.Errorf("%s: until %s, want %s", o, p.Until, failed.Until)
		}
		if paused != (o != pds.Unknown) || p.Limited != (o == pds.Limited) || a.applies != 2 {
			t.Errorf("%s: paused %t, %+v, after %d calls", o, paused, p, a.applies)
		}
	}
}

// A batch that is too large for the PDS is applied in parts.
func TestDeliverTooLarge(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.refuse = func(writes []repo.Write) error {
		if len(writes) > 60 {
			return outcome(pds.TooLarge)
		}
		return nil
	}
	writes := creates(t, MaxWrites)
	if err := NewRepo(a).Deliver(t.Context(), writes, true); err != nil {
		t.Fatal(err)
	}
	a.check(t, writes)
	if a.applies != 7 { // 200, 100, 50, 50, 100, 50, 50
		t.Errorf("%d calls, want 7", a.applies)
	}
}

// A single write that the PDS refuses is found, whether the PDS names it or not, and all
// others are applied.
func TestDeliverRefused(t *testing.T) {
	t.Parallel()
	writes := creates(t, 450)
	for name, bad := range map[string][]int{"first": {0}, "second": {1}, "last": {449}, "in the middle": {263}, "some": {3, 4, 199, 200, 448}} {
		for _, err := range []*pds.Error{refusal(), outcome(pds.TooLarge)} {
			t.Run(fmt.Sprint(name, " ", err.Outcome), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t)
				a.refuse = answerIf(err, pick(writes, bad)...)
				refused := deliver(t, NewRepo(a), writes, 1)
				if !slices.Equal(refused, bad) {
					t.Errorf("refused %v, want %v", refused, bad)
				}
				a.check(t, writes, bad...)
			})
		}
		t.Run(name+" by name", func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.refuse = func(call []repo.Write) error {
				for i, w := range call {
					if answerIf(refusal(), pick(writes, bad)...)(call[i:i+1]) != nil {
						return &repo.WriteError{Index: i, Path: path(w), Err: refusal()}
					}
				}
				return nil
			}
			refused := deliver(t, NewRepo(a), writes, 1)
			if !slices.Equal(refused, bad) {
				t.Errorf("refused %v, want %v", refused, bad)
			}
			a.check(t, writes, bad...)
			if most := 3 + 2*len(bad); a.applies > most {
				t.Errorf("%d calls, want at most %d", a.applies, most)
			}
		})
	}
}

// The index in an error of the Publisher may be wrong.
func TestDeliverInvalidIndex(t *testing.T) {
	t.Parallel()
	for _, i := range []int{-1, 5} {
		a := newAccount(t)
		a.answers = []answer{{err: &repo.WriteError{Index: i, Path: "x/y", Err: errFault}}}
		writes := creates(t, 5)
		err := NewRepo(a).Deliver(t.Context(), writes, true)
		if !errors.Is(err, errFault) || errors.As(err, new(*repo.WriteError)) {
			t.Errorf("index %d: got %v", i, err)
		}
	}
}

var errFault = errors.New("out of order")

// A write that an earlier call applied is not refused when the PDS names it, and the others
// of its call are applied.
func TestDeliverAppliedBefore(t *testing.T) {
	t.Parallel()
	writes := creates(t, 12)
	for name, applied := range map[string][]int{"first": {0}, "some": {2, 3, 9}, "all but one": {0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11}, "all": all(writes)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.named = true
			a.put(t, pick(writes, applied)...)
			if err := NewRepo(&limited{account: a, points: 5}).Deliver(t.Context(), writes, true); err != nil {
				t.Fatal(err)
			}
			for i, w := range writes {
				if want := map[bool]int{true: 0, false: 1}[slices.Contains(applied, i)]; a.applied[path(w)] != want {
					t.Errorf("write %d was applied %d times, want %d", i, a.applied[path(w)], want)
				}
			}
		})
	}
}

// A create whose key has another record is refused, and the record stays.
func TestDeliverConflict(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		a := newAccount(t)
		a.named = named
		writes := creates(t, 30)
		a.put(t, create(t, key(17), "another"))
		if refused := deliver(t, NewRepo(a), writes, 2); !slices.Equal(refused, []int{17}) {
			t.Errorf("refused %v, want 17", refused)
		}
		_, record, err := a.repo.Get(collection, key(17))
		if want := create(t, key(17), "another").Record; err != nil || !slices.Equal(record, want) {
			t.Errorf("the other record has changed: %v", err)
		}
	}
}

// limited is an account whose points are enough for some writes at a time.
type limited struct {
	*account
	points int
}

func (l *limited) Fit(writes []repo.Write) int { return min(l.points, len(writes)) }

// spend answers each call that does not fit as Account.Apply does.
func (l *limited) spend(writes []repo.Write) error {
	if len(writes) > l.points {
		return outcome(pds.Limited)
	}
	l.points -= len(writes)
	return nil
}

// A batch that costs more points than are left is applied in parts, and nothing is sent
// twice.
func TestDeliverLimited(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	l := &limited{account: a}
	a.refuse = l.spend
	r, writes := NewRepo(l), creates(t, 450)
	fresh, calls := true, 0
	for _, step := range []struct{ points, calls, applied int }{
		{70, 2, 70},    // and a call that does not fit, which is not sent to the PDS
		{0, 1, 70},     //
		{1, 2, 71},     //
		{150, 3, 221},  // the rest of the first 200, and some of the next
		{1000, 2, 450}, //
	} {
		l.points = step.points
		err := r.Deliver(t.Context(), writes, fresh)
		p, paused := PauseOf(err)
		if finished := step.applied == len(writes); finished != (err == nil) || finished == (paused && p.Limited) {
			t.Fatalf("with %d points: %v", step.points, err)
		}
		if len(a.applied) != step.applied || a.applies-calls != step.calls {
			t.Errorf("with %d points: %d calls, and %d writes are applied, want %d and %d", step.points, a.applies-calls, len(a.applied), step.calls, step.applied)
		}
		fresh, calls = false, a.applies
	}
	a.check(t, writes)
}

// The write that an error names is counted in all writes of the batch, also if some of them
// are not sent any more, or not sent yet.
func TestDeliverRefusedLater(t *testing.T) {
	t.Parallel()
	writes := creates(t, 250)
	a := newAccount(t)
	a.named = true
	a.put(t, slices.Concat(writes[:20], writes[210:215])...)
	r := NewRepo(&limited{account: a, points: 100})
	for _, i := range []int{99, 150, 230} {
		a.refuse = func(call []repo.Write) error {
			for k, w := range call {
				if w.RKey == key(i) {
					return &repo.WriteError{Index: k, Path: path(w), Err: refusal()}
				}
			}
			return nil
		}
		err := r.Deliver(t.Context(), writes[:i+1], i == 99)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) || invalid.Index != i || invalid.Path != path(writes[i]) {
			t.Errorf("got %v, want that write %d is refused", err, i)
		}
	}
	a.refuse = nil
	if err := r.Deliver(t.Context(), writes, true); err != nil {
		t.Fatal(err)
	}
	if missing := a.missing(t, writes); len(missing) > 0 {
		t.Errorf("missing %v", missing)
	}
}

// The revision after a batch is that of its last call, which the PDS is not asked for,
// unless the answer was lost.
func TestRevision(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	r, writes := NewRepo(a), creates(t, 2)
	expect := func(when string) {
		t.Helper()
		if rev, err := r.Revision(t.Context()); err != nil || rev != a.repo.Head().Rev {
			t.Errorf("%s: %q, %v; want %q", when, rev, err, a.repo.Head().Rev)
		}
	}
	expect("before the first call")
	if err := r.Deliver(t.Context(), writes[:1], true); err != nil {
		t.Fatal(err)
	}
	a.revDown = true
	expect("after a call")
	a.answers = []answer{{outcome(pds.Unknown), true}}
	if err := r.Deliver(t.Context(), writes[1:], true); err == nil {
		t.Fatal("the call has not failed")
	}
	if rev, err := r.Revision(t.Context()); err == nil {
		t.Errorf("after a lost answer, without the PDS: %q", rev)
	}
	a.revDown = false
	expect("after a lost answer")
}
