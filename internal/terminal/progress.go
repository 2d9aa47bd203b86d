package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
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
)

// clearLine moves to the beginning of the line and clears it.
const clearLine = "\r\x1b[K"

// A Progress shows how far a task is: on a terminal as a bar, elsewhere as a line every ten
// seconds. A task of less than two seconds shows nothing. Its methods are safe for
// concurrent use; those of nil do nothing.
type Progress struct {
	out     io.Writer
	bar     bool
	noun    string
	started time.Time
	ended   chan struct{} // closed by End
	drawing sync.WaitGroup
	once    sync.Once

	mu          sync.Mutex
	done, total int64
	note        string
	drawn       bool // the cursor is on the line of the bar
	shown       bool // anything was shown
}

// NewProgress begins to show the progress of a task with total steps, 0 if that is not
// known. noun names the steps in the plural, such as "manifests". out is usually the
// standard error. The caller must call End.
func NewProgress(out io.Writer, noun string, total int64) *Progress {
	return newProgress(out, noun, total, Is(out) && os.Getenv("TERM") != "dumb")
}

func newProgress(out io.Writer, noun string, total int64, bar bool) *Progress {
	p := &Progress{out: out, bar: bar, noun: noun, total: total, started: time.Now(), ended: make(chan struct{})}
	p.drawing.Go(p.run)
	return p
}

// run shows the progress until End.
func (p *Progress) run() {
	wait, every := quiet, lineEvery
	if p.bar {
		every = redraw
	}
	timer := time.NewTimer(wait)
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

// Set sets how many of how many steps are finished; total 0 is not known.
func (p *Progress) Set(done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// Note sets what is shown after the numbers, such as why the task waits.
func (p *Progress) Note(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note = text
}

// Printf prints a line above the bar, to any writer that shares the terminal with it.
func (p *Progress) Printf(out io.Writer, format string, args ...any) {
	if p == nil {
		fmt.Fprintf(out, format+"\n", args...)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.out, clearLine)
		p.drawn = false
	}
	fmt.Fprintf(out, format+"\n", args...)
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
		if p.bar {
			fmt.Fprintln(p.out)
			p.drawn = false
		}
	})
}

// show draws the bar or prints a line. The caller must hold mu.
func (p *Progress) show() {
	p.shown = true
	if p.bar {
		fmt.Fprint(p.out, clearLine+p.text(true))
		p.drawn = true
		return
	}
	fmt.Fprintln(p.out, p.text(false))
}

// text is the progress in one line, such as
// "[#####-------------------]  21%  2100 of 10000 manifests, 42/s, 3m8s left".
func (p *Progress) text(bar bool) string {
	var b strings.Builder
	if bar && p.total > 0 {
		n := int(barWidth * min(p.done, p.total) / p.total)
		b.WriteString("[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "] ")
	}
	if p.total > 0 {
		fmt.Fprintf(&b, "%3d%%  %d of %d %s", 100*min(p.done, p.total)/p.total, p.done, p.total, p.noun)
	} else {
		fmt.Fprintf(&b, "%d %s", p.done, p.noun)
	}
	if elapsed := time.Since(p.started).Seconds(); elapsed > 0 && p.done > 0 {
		rate := float64(p.done) / elapsed
		fmt.Fprintf(&b, ", %.3g/s", rate)
		if left := p.total - p.done; left > 0 {
			fmt.Fprintf(&b, ", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	if p.note != "" {
		b.WriteString(", " + p.note)
	}
	return b.String()
}
