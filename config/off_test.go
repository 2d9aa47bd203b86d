package config

import (
	"testing"
	"time"
)

func TestDurationOrOff(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"off": 0, `"off"`: 0, "0": 0, "90m": 90 * time.Minute} {
		if got := time.Duration(mustRead(t, "data: /d\nstats: {records: "+text+"}", "").Stats.Records); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
