package repo

import (
	"errors"
	"testing"
	"time"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 250)
	st, err := ReadStatus(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, _ := verify(t, cfg)
	if st.Head != report.Head || st.Events != report.Events || st.EventBytes == 0 || st.OldestEvent == 0 || st.LostEvents != 0 || st.DiskBytes == 0 || st.Ahead > time.Minute {
		t.Errorf("%+v; verify: %+v", st, report)
	}
	want := []Collection{{"app.bsky.actor.profile", 1}, {"com.example.note", 250}}
	if len(st.Collections) != 2 || st.Collections[0] != want[0] || st.Collections[1] != want[1] {
		t.Errorf("collections %v, want %v", st.Collections, want)
	}
	other := cfg
	other.Key = testKey(t)
	if _, err := ReadStatus(other); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	other.Dir = "none"
	if _, err := ReadStatus(other); !errors.Is(err, ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}
