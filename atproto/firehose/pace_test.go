package firehose

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration
		size   int
		behind time.Duration
		slow   bool
	}
	for name, steps := range map[string][]step{
		"near, slow":           {{time.Hour, 1, time.Minute, false}, {time.Hour, 1, time.Minute, false}},
		"far, fast":            {{0, 0, time.Hour, false}, {30 * time.Second, 50 << 10, time.Hour, false}, {40 * time.Second, 50 << 10, time.Hour, false}},
		"far, slow":            {{0, 0, time.Hour, false}, {30 * time.Second, 1, time.Hour, false}, {40 * time.Second, 1, time.Hour, true}},
		"far, near, far":       {{0, 0, time.Hour, false}, {50 * time.Second, 1, time.Minute, false}, {50 * time.Second, 1, time.Hour, false}, {50 * time.Second, 1, time.Hour, false}},
		"far, fast, then slow": {{0, 0, time.Hour, false}, {time.Minute, 1 << 20, time.Hour, false}, {time.Minute, 1, time.Hour, true}},
		"far, long pause":      {{0, 0, time.Hour, false}, {time.Hour, 1 << 20, time.Hour, true}},
	} {
		p := pace{limit: Slow{}.withDefaults()}
		now := time.Now()
		for i, s := range steps {
			now = now.Add(s.after)
			if got := p.tooSlow(now, s.size, s.behind); got != s.slow {
				t.Errorf("%s: step %d: tooSlow = %v", name, i, got)
			}
		}
	}
}
