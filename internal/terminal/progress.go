package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// quiet is how long a task may take before its progress is shown.
	quiet = 2 * time.Second
	// redraw is how often a bar is drawn.
	redraw = 200 * time.Millisecond
	// lineEvery is how often a line is printed where there is no terminal.
	lineEvery = 10 * time.Second
	// barWidth is the width of a bar in characters.
	barWidth = 24
	// margin is how many characters of a line are left free: one, so that the cursor stays on
	// the line, and two for the ^C that a terminal shows when the task is interrupted.
	margin = 3
)

// clearLine moves to the beginning of the line and clears it.
const clearLine = "\r\x1b[K"

// Bytes is the noun of steps that are bytes. They are shown as sizes, such as "1.5 MiB".
const Bytes = "bytes"

// A Progress shows how far a task is: on a terminal as a bar, elsewhere as a line every ten
// seconds. A task of less than two seconds shows nothing. Its methods are safe for
// concurrent use; those of nil do nothing.
type Progress struct {
	out     io.Writer
	width   func() int // of the terminal; nil: there is none that can show a bar
	ended   chan struct{}
	drawing sync.WaitGroup
	once    sync.Once

	mu          sync.Mutex
	noun        string
	began       time.Time // the steps of this noun
	done, total int64
	before      int64 // steps that were finished when it began
	note        string
	narrow      bool // the numbers and the note had no space next to a bar
	drawn       bool // the cursor is on the line of the bar
	shown       bool // anything was shown
}

// NewProgress begins to show the progress of a task with total steps, 0 if that is not
// known. noun names the steps in the plural, such as "manifests"; "" if there are none, and
// only the note is shown. out is usually the standard error. The caller must call End.
func NewProgress(out io.Writer, noun string, total int64) *Progress {
	if !Is(out) || !drawable() {
		return newProgress(out, noun, total, nil)
	}
	return newProgress(out, noun, total, func() int {
		n, _ := columns(out)
		return n
	})
}

func newProgress(out io.Writer, noun string, total int64, width func() int) *Progress {
	p := &Progress{out: out, width: width, noun: noun, total: total, began: time.Now(), ended: make(chan struct{})}
	p.drawing.Go(p.run)
	return p
}

// Wait begins to show that a command waits, with how long it has waited. The caller must
// call End.
func Wait(out io.Writer, reason string) *Progress {
	p := NewProgress(out, "", 0)
	p.Note(reason)
	return p
}

// run shows the progress until End.
func (p *Progress) run() {
	every := lineEvery
	if p.width != nil {
		every = redraw
	}
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-timer.C:
		}
		p.mu.Lock()
		p.show()
		p.mu.Unlock()
		timer.Reset(every)
	}
}

// Add adds finished steps.
func (p *Progress) Add(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
}

// Set sets how many of how many steps are finished; total 0 is not known. Fewer steps than
// before are those of another kind.
func (p *Progress) Set(done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if done < p.done {
		p.began, p.before, p.narrow = time.Now(), 0, false
	}
	p.done, p.total = done, total
}

// Continue is Set with steps that were finished before the command began to watch the task.
func (p *Progress) Continue(done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total, p.before = done, total, done
}

// Count sets how many steps are finished of a task that has several kinds of steps one after
// the other, whose numbers are not known before.
func (p *Progress) Count(noun string, done int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if noun != p.noun {
		p.noun, p.began, p.before, p.narrow = noun, time.Now(), 0, false
	}
	p.done, p.total = done, 0
}

// Note sets what is shown after the numbers, such as why the task waits.
func (p *Progress) Note(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text != p.note {
		p.note, p.narrow = text, false
	}
}

// Counter returns a writer that adds the bytes it gets as finished steps.
func (p *Progress) Counter() io.Writer { return counter{p} }

type counter struct{ p *Progress }

func (c counter) Write(b []byte) (int, error) {
	c.p.Add(int64(len(b)))
	return len(b), nil
}

// Writer returns a writer for lines that appear above the bar. Each Write has whole lines. to
// is where they go, which may be the terminal of the bar or not.
func (p *Progress) Writer(to io.Writer) io.Writer {
	if p == nil {
		return to
	}
	return &lineWriter{p, to}
}

type lineWriter struct {
	p  *Progress
	to io.Writer
}

func (w *lineWriter) Write(lines []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.drawn {
		fmt.Fprint(w.p.out, clearLine)
		w.p.drawn = false
	}
	return w.to.Write(lines)
}

// End shows the final numbers, if anything was shown, and ends the line. It may be called
// twice.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.once.Do(func() {
		close(p.ended)
		p.drawing.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.shown {
			return
		}
		p.show()
		if p.width != nil {
			fmt.Fprintln(p.out)
			p.drawn = false
		}
	})
}

// show draws the bar or prints a line. The caller must hold mu.
func (p *Progress) show() {
	p.shown = true
	if p.width != nil {
		fmt.Fprint(p.out, clearLine+p.barLine(p.width()))
		p.drawn = true
		return
	}
	fmt.Fprintln(p.out, p.text())
}

// barLine is the bar and the text in one line, since a line that wraps could not be cleared.
// If there is no space for both, it is the text, until that has another note.
func (p *Progress) barLine(columns int) string {
	line, most := p.text(), max(columns-margin, 1)
	if p.total > 0 {
		n := int(barWidth * min(p.done, p.total) / p.total)
		long := "[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "] " + line
		if p.narrow = p.narrow || utf8.RuneCountInString(long) > most; !p.narrow {
			return long
		}
	}
	if utf8.RuneCountInString(line) > most {
		line = string([]rune(line)[:most-1]) + "…"
	}
	return line
}

// longestLeft is the longest time left that is shown; more says nothing.
const longestLeft = 100 * 24 * time.Hour

// text is the progress in words, such as " 21%  2100 of 10000 manifests, 42/s, 3m8s left".
func (p *Progress) text() string {
	elapsed := time.Since(p.began)
	if p.noun == "" {
		return fmt.Sprintf("%s, %s", p.note, elapsed.Round(time.Second))
	}
	var b strings.Builder
	if p.total > 0 {
		fmt.Fprintf(&b, "%3d%%  %s of ", 100*min(p.done, p.total)/p.total, p.amount(p.done))
		b.WriteString(p.steps(p.total))
	} else {
		b.WriteString(p.steps(p.done))
	}
	if elapsed > 0 && p.done > p.before {
		rate := float64(p.done-p.before) / elapsed.Seconds()
		b.WriteString(", " + p.rate(rate) + "/s")
		if left := float64(p.total-p.done) / rate; left > 0 && left < longestLeft.Seconds() {
			fmt.Fprintf(&b, ", %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
		}
	}
	if p.note != "" {
		b.WriteString(", " + p.note)
	}
	return b.String()
}

// amount formats a number of steps.
func (p *Progress) amount(n int64) string {
	if p.noun == Bytes {
		return Size(n)
	}
	return fmt.Sprint(n)
}

// steps formats a number of steps with their noun.
func (p *Progress) steps(n int64) string {
	if p.noun == Bytes {
		return Size(n)
	}
	return fmt.Sprintf("%d %s", n, p.noun)
}

// rate formats a number of steps in a second.
func (p *Progress) rate(perSecond float64) string {
	if p.noun == Bytes || perSecond >= 1000 {
		return p.amount(int64(perSecond))
	}
	return fmt.Sprintf("%.3g", perSecond)
}

// Size formats a number of bytes, such as "1.5 MiB".
func Size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
