package terminal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]error{
		"y\n": nil, "yes\n": nil, " YES \r\n": nil, "y": nil,
		"n\n": ErrDeclined, "\n": ErrDeclined, "yesterday\n": ErrDeclined, strings.Repeat("y", 2*maxAnswer): ErrDeclined,
		"": ErrNoAnswer,
	} {
		var out bytes.Buffer
		if err := Confirm(strings.NewReader(answer), &out, "Delete 3 images?"); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", answer, err, want)
		}
		if !strings.HasPrefix(out.String(), "Delete 3 images? [y/N] ") {
			t.Errorf("asks %q", out.String())
		}
	}
	if err := Confirm(failingReader{}, io.Discard, "?"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestIs(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, stream := range map[string]any{"a buffer": &bytes.Buffer{}, "the null device": null, "a file": file} {
		if Is(stream) {
			t.Errorf("%s is a terminal", name)
		}
	}
}

// A short task shows nothing. A longer one shows a bar that ends with its last numbers, or a
// line every ten seconds.
func TestProgress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		bar   bool
		total int64
		takes time.Duration
		want  string
	}{
		"short":         {true, 40, time.Second, "above\n"},
		"short, no bar": {false, 40, time.Second, "above\n"},
		"bar": {true, 40, 2100 * time.Millisecond, "above\n" +
			clearLine + "[############------------]  50%  20 of 40 tags, 10/s, 2s left" + clearLine + "between\n" +
			clearLine + "[############------------]  50%  20 of 40 tags, 9.52/s, 2s left, waits\n"},
		"lines": {false, 40, 13 * time.Second, "above\n" +
			" 50%  20 of 40 tags, 10/s, 2s left\nbetween\n 50%  20 of 40 tags, 1.67/s, 12s left, waits\n 50%  20 of 40 tags, 1.54/s, 13s left, waits\n"},
		"no total": {false, 0, 3 * time.Second, "above\n20 tags, 10/s\nbetween\n20 tags, 6.67/s, waits\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := newProgress(&out, "tags", test.total, test.bar)
				p.Printf(&out, "above")
				p.Add(20)
				time.Sleep(min(test.takes, 2050*time.Millisecond))
				if test.takes > quiet {
					p.Printf(&out, "%s", "between")
					p.Note("waits")
				}
				time.Sleep(test.takes - min(test.takes, 2050*time.Millisecond))
				p.End()
				p.End()
				if got := out.String(); got != test.want {
					t.Errorf("got  %q\nwant %q", got, test.want)
				}
			})
		})
	}
	var none *Progress
	none.Add(1)
	none.Set(1, 2)
	none.Note("")
	none.End()
}
