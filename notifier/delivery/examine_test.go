package delivery

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// The writes that a PDS never accepts, without a reason, are found; all others are applied
// once.
func TestRefusedWithoutReason(t *testing.T) {
	t.Parallel()
	writes := creates(t, 50)
	for _, bad := range [][]int{{0}, {25}, {49}, {0, 49}, {3, 4, 30}} {
		a := newAccount(t)
		a.refuse = answerIf(failure(), pick(writes, bad)...)
		refused := deliver(t, NewRepo(a), writes, 100)
		slices.Sort(refused)
		if !slices.Equal(refused, bad) {
			t.Errorf("refused %v, want %v", refused, bad)
		}
		a.check(t, writes, bad...)
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
		if err := r.Deliver(t.Context(), writes, i == 0); !failsInside(err) {
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
	for at := range 30 {
		for name, fails := range map[string]func(call int) bool{
			"works again":   func(call int) bool { return call < at },
			"fails again":   func(call int) bool { return call <= maxFailures || call >= at && call < at+maxSuspectFailures-1 },
			"fails by turn": func(call int) bool { return call < maxFailures+at || call%2 == at%2 },
		} {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s at call %d, applied %t", name, at, applied), func(t *testing.T) {
					t.Parallel()
					a, writes := newAccount(t), creates(t, 20)
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
