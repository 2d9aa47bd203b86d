package pds

import (
	"testing"
	"time"
)

// Creates that can wait leave three tenths of each limit to others.
func TestSpare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: 300, Day: 1_000}
	r.reopen()
	if ok, _ := r.Spare(0, 70); !ok {
		t.Error("70 creates cost 210 of 300 points, and have to wait")
	}
	if ok, at := r.Spare(0, 71); !ok || at.After(r.now) {
		t.Errorf("creates that never fit wait until %s although nothing is spent", at)
	}
	if ok, _ := r.Spare(60, 11); ok {
		t.Error("71 creates fit, of which 60 are pending")
	}
	if err := r.apply(60); err != nil {
		t.Fatal(err)
	}
	if ok, _ := r.Spare(0, 10); !ok {
		t.Error("30 of the 30 points that are left have to wait")
	}
	ok, at := r.Spare(0, 11)
	if wait := at.Sub(r.now); ok || wait < time.Hour-bucket || wait > time.Hour+bucket {
		t.Errorf("33 points: %v, in %s; want in an hour", ok, wait)
	}
	if err := r.apply(30); err != nil {
		t.Errorf("what does not wait for spare points: %v", err)
	}
	// 700 a day, of which 270 are spent, and 210 an hour.
	if got := r.ForecastSpare(140).Sub(r.now); got < 2*time.Hour || got > 3*time.Hour {
		t.Errorf("420 points are spent in %s, want two hours", got)
	}
	if got := r.ForecastSpare(150).Sub(r.now); got < 23*time.Hour {
		t.Errorf("450 points are spent in %s, want a day", got)
	}
}
