package cli

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"1 push": Count(1, "push"), "0 pushes": Count(0, "push"), "2 repositories": Count(2, "repository"), "2 days": Count(2, "day"), "2 records": Count(2, "record"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := NewTable(&out)
	w.Row("sinks", "%d%%", 5)
	w.Row("", "and more")
	if err := w.Flush(); err != nil || out.String() != "sinks  5%\n       and more\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
