package delivery

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// A write that the PDS never accepts, without a reason, is found with few calls: the first
// maxFailures with all writes, one that is applied, two for each halving of 200, and three
// to compare the write with another one. All others are applied once.
func TestExamine(t *testing.T) {
	t.Parallel()
	const most = maxFailures + 2*8 + 1 + 3
	writes := creates(t, MaxWrites)
	for bad, extra := range map[int]int{ // further tries
		0: 0, 1: 0, 2: 0, 99: 0, 100: 0, 137: 0, 199: 0,
		196: 1,                 // the one that is sent first
		195: maxSingleFailures, // the last one, without another one to compare it with
	} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.refuse = answerIf(failure(), writes[bad])
			r := NewRepo(a)
			if refused := deliver(t, r, writes, maxFailures+1+extra); !slices.Equal(refused, []int{bad}) {
				t.Errorf("refused %v, want %d", refused, bad)
			}
			a.check(t, writes, bad)
			if a.applies > most+extra {
				t.Errorf("%d calls, want at most %d", a.applies, most+extra)
			}
			a.refuse = nil
			if err := r.Deliver(t.Context(), writes[bad:bad+1], true); err != nil {
				t.Errorf("sent again once the PDS accepts it: %v", err)
			}
		})
	}
}

// Several writes that the PDS never accepts are found together.
func TestExamineSeveral(t *testing.T) {
	t.Parallel()
	writes := creates(t, 450)
	for name, bad := range map[string][]int{
		"neighbours": {10, 11, 12}, "at the end of a call": {197, 198, 199}, "all over": {0, 17, 63, 64, 150, 199},
		"half of a call": all(writes)[:90], "one that is compared with": {10, 195},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.refuse = answerIf(failure(), pick(writes, bad)...)
			if refused := deliver(t, NewRepo(a), writes, maxFailures+1); !slices.Equal(refused, bad) {
				t.Errorf("refused %v, want %v", refused, bad)
			}
			a.check(t, writes, bad...)
		})
	}
}

// Writes that cannot be compared with others are refused, too, but only after a long time.
func TestExamineFewAccepted(t *testing.T) {
	t.Parallel()
	writes := creates(t, 5)
	bad := []int{0, 1, 2, 4}
	const least = (4 + 3 + 2 + 1) * maxSingleFailures // calls; fewer writes are left after each
	a := newAccount(t)
	a.refuse = answerIf(failure(), pick(writes, bad)...)
	if refused := deliver(t, NewRepo(a), writes, least+10); !slices.Equal(refused, bad) {
		t.Errorf("refused %v, want %v", refused, bad)
	}
	a.check(t, writes, bad...)
	if a.applies < least {
		t.Errorf("%d calls, want at least %d", a.applies, least)
	}
}

// While the PDS fails for everything, no write of a batch is refused, however often it is
// tried, and a try makes one call that writes. Afterwards all are applied.
func TestExamineOutage(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 30, 450} {
		a := newAccount(t)
		r, writes := NewRepo(a), creates(t, n)
		a.refuse = func([]repo.Write) error { return failure() }
		for try := range 5 * maxSingleFailures {
			err := r.Deliver(t.Context(), writes, try == 0)
			if err == nil || errors.As(err, new(*repo.WriteError)) {
				t.Fatalf("try %d of %d writes: %v", try, n, err)
			}
			if a.applies > try+1 {
				t.Fatalf("%d calls in %d tries", a.applies, try+1)
			}
		}
		a.refuse = nil
		if err := r.Deliver(t.Context(), writes, false); err != nil {
			t.Fatal(err)
		}
		a.check(t, writes)
	}
}

// A PDS that begins to fail at any time of an examination, or fails once, costs no other
// write than the one that it always fails for.
func TestExamineInterrupted(t *testing.T) {
	t.Parallel()
	const bad = 61
	writes := creates(t, MaxWrites)
	for name, fault := range map[string]struct {
		err   error
		calls int
	}{
		"fails once": {failure(), 1}, "fails for long": {failure(), maxSingleFailures - 1}, "no answer": {outcome(pds.Unknown), 1},
		"limited": {outcome(pds.Limited), 1}, "suspended": {outcome(pds.Suspended), 3},
	} {
		for from := 1; from < 26; from++ {
			t.Run(fmt.Sprint(name, " at call ", from), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t)
				a.refuse = func(call []repo.Write) error {
					if a.applies >= from && a.applies < from+fault.calls {
						return fault.err
					}
					return answerIf(failure(), writes[bad])(call)
				}
				refused := deliver(t, NewRepo(a), writes, 2000)
				if !slices.Equal(refused, []int{bad}) {
					t.Errorf("refused %v, want %d", refused, bad)
				}
				a.check(t, writes, bad)
			})
		}
	}
}

// Failures are counted in a row, and for each call alone.
func TestExamineCounts(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	r, writes := NewRepo(a), creates(t, 3)
	a.refuse = func([]repo.Write) error { return failure() }
	try := func(w repo.Write, times int) {
		for range times {
			if err := r.Deliver(t.Context(), []repo.Write{w}, false); errors.As(err, new(*repo.WriteError)) {
				t.Fatalf("refused: %v", err)
			}
		}
	}
	try(writes[0], maxSingleFailures-1)
	try(writes[1], maxSingleFailures-1)
	try(writes[0], maxSingleFailures-1)
	a.answers = []answer{{err: failure(), applied: true}}
	try(writes[0], 2) // it is applied
	a.refuse = nil
	try(writes[1], 1)
	other := create(t, key(3), "3")
	a.refuse = answerIf(failure(), other)
	try(other, maxSingleFailures-1)
	try(create(t, key(4), "4"), 1)
	try(other, maxSingleFailures-1)
	a.refuse = func([]repo.Write) error { return failure() }
	try(writes[2], maxSingleFailures-1)
}

// A batch may have writes that the PDS fails for and others that it refuses, whichever it
// checks first.
func TestExamineAndRefuse(t *testing.T) {
	t.Parallel()
	writes := creates(t, MaxWrites)
	for _, bad := range [][2]int{{10, 11}, {11, 10}, {10, 150}, {150, 10}, {0, 199}, {10, 196}, {196, 10}} {
		for _, failsFirst := range []bool{true, false} {
			for _, err := range []*pds.Error{refusal(), outcome(pds.TooLarge)} {
				t.Run(fmt.Sprint(bad, failsFirst, err.Outcome), func(t *testing.T) {
					t.Parallel()
					a := newAccount(t)
					fails, refuses := answerIf(failure(), writes[bad[0]]), answerIf(err, writes[bad[1]])
					if !failsFirst {
						fails, refuses = refuses, fails
					}
					a.refuse = func(call []repo.Write) error {
						if err := fails(call); err != nil {
							return err
						}
						return refuses(call)
					}
					refused := deliver(t, NewRepo(a), writes, 500)
					slices.Sort(refused)
					if want := slices.Sorted(slices.Values(bad[:])); !slices.Equal(refused, want) {
						t.Errorf("refused %v, want %v", refused, want)
					}
					a.check(t, writes, bad[:]...)
				})
			}
		}
	}
}

// Calls of an examination that fail yet are applied are found by reading back.
func TestExamineLostAnswers(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	writes := creates(t, MaxWrites)
	a.answers = slices.Repeat([]answer{{err: failure()}}, maxFailures)
	a.answers = append(a.answers, slices.Repeat([]answer{{err: failure(), applied: true}}, 4)...)
	if refused := deliver(t, NewRepo(a), writes, 500); len(refused) > 0 {
		t.Errorf("refused %v", refused)
	}
	a.check(t, writes)
}

// A write is refused only if it failed alone: here an earlier call is applied late, so that
// the PDS fails for a pair because of the other one.
func TestExamineLateCall(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	writes := creates(t, 6)
	a.answers = slices.Repeat([]answer{{err: failure()}}, maxFailures)
	late := false
	a.refuse = func(call []repo.Write) error {
		if len(call) == 2 && !late {
			late = true
			a.put(t, call[1])
		}
		return nil
	}
	if refused := deliver(t, NewRepo(a), writes, 500); len(refused) > 0 || !late {
		t.Errorf("refused %v", refused)
	}
	if missing := a.missing(t, writes); len(missing) > 0 {
		t.Errorf("missing %v", missing)
	}
}

// A single write, which cannot be compared with others, is refused after about an hour, if
// the PDS answers other calls.
func TestSingleRefusedWithoutReason(t *testing.T) {
	t.Parallel()
	a, writes := newAccount(t), creates(t, 1)
	a.refuse = answerIf(failure(), writes...)
	r := NewRepo(a)
	a.revDown = true
	for i := range 2 * maxSingleFailures {
		if err := r.Deliver(t.Context(), writes, i == 0); err == nil || errors.As(err, new(*repo.WriteError)) {
			t.Fatalf("while the PDS answers nothing: %v", err)
		}
	}
	a = newAccount(t)
	a.refuse = answerIf(failure(), writes...)
	if refused := deliver(t, NewRepo(a), writes, maxSingleFailures); len(refused) != 1 || a.applies != maxSingleFailures {
		t.Errorf("refused %v after %d calls, want %d", refused, a.applies, maxSingleFailures)
	}
}

// A PDS that cannot write costs few points, and nothing is given up because of it.
func TestFailingPDS(t *testing.T) {
	t.Parallel()
	const down = 60 // calls
	a, writes, sent := newAccount(t), creates(t, MaxWrites), 0
	a.refuse = func(call []repo.Write) error {
		sent += len(call)
		if a.applies <= down {
			return failure()
		}
		return nil
	}
	if refused := deliver(t, NewRepo(a), writes, 100); len(refused) > 0 {
		t.Errorf("refused %v", refused)
	}
	a.check(t, writes)
	if most := maxFailures*MaxWrites + down + MaxWrites; sent > most {
		t.Errorf("%d writes were sent, want at most %d", sent, most)
	}
}

// A PDS begins to fail, or works again, at any call while writes are examined, also if it
// applies what it answers with an error: nothing is given up or applied twice.
func TestFailingWhileExamined(t *testing.T) {
	t.Parallel()
	for at := range 20 {
		for name, fails := range map[string]func(call int) bool{
			"works again":   func(call int) bool { return call < at },
			"fails again":   func(call int) bool { return call <= maxFailures || call >= at && call < at+9 },
			"fails by turn": func(call int) bool { return call < maxFailures+at || call%2 == at%2 },
		} {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s at call %d, applied %t", name, at, applied), func(t *testing.T) {
					t.Parallel()
					a, writes := newAccount(t), creates(t, 9)
					for call := range 60 {
						next := answer{}
						if fails(call) {
							next = answer{failure(), applied}
						}
						a.answers = append(a.answers, next)
					}
					if refused := deliver(t, NewRepo(a), writes, 200); len(refused) > 0 {
						t.Errorf("refused %v", refused)
					}
					a.check(t, writes)
				})
			}
		}
	}
}
