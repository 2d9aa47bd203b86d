package terminal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
		if err := Confirm(t.Context(), strings.NewReader(answer), &out, "Delete 3 images?"); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", answer, err, want)
		}
		if !strings.HasPrefix(out.String(), "Delete 3 images? [y/N] ") {
			t.Errorf("asks %q", out.String())
		}
	}
	if err := Confirm(t.Context(), failingReader{}, io.Discard, "?"); !errors.Is(err, io.ErrUnexpectedEOF) {
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
		columns int // of the terminal; 0: there is none
		noun    string
		total   int64
		takes   time.Duration
		want    string
	}{
		"short":         {80, "tags", 40, time.Second, "above\n"},
		"short, no bar": {0, "tags", 40, time.Second, "above\n"},
		"bar": {80, "tags", 40, 2100 * time.Millisecond, "above\n" +
			clearLine + "[############------------]  50%  20 of 40 tags, 10/s, 2s left" + clearLine + "between\n" +
			clearLine + "[############------------]  50%  20 of 40 tags, 9.52/s, 2s left, waits\n"},
		"narrow": {25, "tags", 40, 2100 * time.Millisecond, "above\n" +
			clearLine + " 50%  20 of 40 tags, …" + clearLine + "between\n" + clearLine + " 50%  20 of 40 tags, …\n"},
		"very narrow": {1, "tags", 40, 2100 * time.Millisecond, "above\n" + clearLine + "…" + clearLine + "between\n" + clearLine + "…\n"},
		"lines": {0, "tags", 40, 13 * time.Second, "above\n" +
			" 50%  20 of 40 tags, 10/s, 2s left\nbetween\n 50%  20 of 40 tags, 1.67/s, 12s left, waits\n 50%  20 of 40 tags, 1.54/s, 13s left, waits\n"},
		"no total": {0, "tags", 0, 3 * time.Second, "above\n20 tags, 10/s\nbetween\n20 tags, 6.67/s, waits\n"},
		"bytes":    {0, Bytes, 4000, 3 * time.Second, "above\n  0%  20 B of 3.9 KiB, 10 B/s, 6m38s left\nbetween\n  0%  20 B of 3.9 KiB, 6 B/s, 9m57s left, waits\n"},
		"a wait":   {0, "", 0, 3 * time.Second, "above\n, 2s\nbetween\nwaits, 3s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				width := func() int { return test.columns }
				if test.columns == 0 {
					width = nil
				}
				p := newProgress(&out, test.noun, test.total, width)
				lines := p.Writer(&out)
				fmt.Fprintln(lines, "above")
				p.Add(20)
				time.Sleep(min(test.takes, 2050*time.Millisecond))
				if test.takes > quiet {
					fmt.Fprintln(lines, "between")
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
	none.Count("", 1)
	none.Note("")
	none.End()
}

// A bar disappears while there is no space for it next to the text, which is not cut for it. It
// returns with another note, and not whenever the text is a little shorter.
func TestProgressNarrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(io.Discard, "tags", 40, nil)
		defer p.End()
		time.Sleep(time.Second)
		const fits = "[######------------------]  25%  10 of 40 tags, 10/s, 3s left, waits"
		for _, step := range []struct {
			done int64
			note string
			want string
		}{
			{10, "waits", fits},
			{12, "waits!", " 30%  12 of 40 tags, 12/s, 2s left, waits!"},
			{13, "waits!", " 32%  13 of 40 tags, 13/s, 2s left, waits!"},
			{20, "", "[############------------]  50%  20 of 40 tags, 20/s, 1s left"},
		} {
			p.Set(step.done, 40)
			p.Note(step.note)
			if got := p.barLine(len(fits) + margin); got != step.want {
				t.Errorf("got %q, want %q", got, step.want)
			}
		}
		p.Note("waits!")
		if p.barLine(len(fits) + margin); p.barLine(1000)[0] == '[' {
			t.Error("the bar returns with the same note")
		}
	})
}

// The rate is that of the steps since the command watches, and of each kind of steps.
func TestProgressContinued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(io.Discard, "tags", 0, nil)
		defer p.End()
		p.Continue(1000, 2000)
		for _, step := range []struct {
			done, total int64
			want        string
		}{
			{1000, 2000, " 50%  1000 of 2000 tags"},
			{1010, 2000, " 50%  1010 of 2000 tags, 2.5/s, 6m36s left"},
			{4, 8, " 50%  4 of 8 tags"}, // the next kind
			{5, 8, " 62%  5 of 8 tags, 2.5/s, 1s left"},
		} {
			time.Sleep(2 * time.Second)
			p.Set(step.done, step.total)
			if got := p.text(); got != step.want {
				t.Errorf("got %q, want %q", got, step.want)
			}
		}
	})
}

// The rate of each kind of steps is that of its own time.
func TestProgressOfKinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out, Bytes, 0, nil)
		p.Set(4096, 8192)
		time.Sleep(3 * time.Second)
		p.Count("records", 1)
		time.Sleep(2 * time.Second)
		p.Count("records", 5000)
		p.End()
		if got, want := out.String(), " 50%  4.0 KiB of 8.0 KiB, 2.0 KiB/s, 2s left\n5000 records, 2500/s\n"; got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

// A question ends when its command is interrupted.
func TestConfirmInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in, answer := io.Pipe()
	defer answer.Close()
	var out bytes.Buffer
	time.AfterFunc(time.Millisecond, cancel)
	if err := Confirm(ctx, in, &out, "Delete?"); !errors.Is(err, ErrDeclined) || out.String() != "Delete? [y/N] \n" {
		t.Errorf("got %v after %q", err, out.String())
	}
}
