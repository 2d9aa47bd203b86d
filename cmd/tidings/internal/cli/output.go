package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/tidings-dev/tidings/atproto/repo/repair"
	"github.com/tidings-dev/tidings/internal/terminal"
)

// MaxPrinted limits the problems or differences that are printed; all are counted.
const MaxPrinted = 200

// A Table aligns the cells of lines, which tabs separate.
type Table struct{ *tabwriter.Writer }

// NewTable returns a table. Flush prints it.
func NewTable(out io.Writer) Table { return Table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

// Row adds a line about a topic; "" continues the topic of the line before.
func (t Table) Row(topic, format string, args ...any) {
	fmt.Fprintf(t, "%s\t%s\n", topic, fmt.Sprintf(format, args...))
}

// PrintJSON prints v as indented JSON.
func PrintJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// PrintLine prints v as one line of JSON.
func PrintLine(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// PrintProblems returns a callback that prints up to MaxPrinted problems.
func PrintProblems(out io.Writer) func(repair.Problem) {
	shown := 0
	return func(p repair.Problem) {
		switch shown++; {
		case shown <= MaxPrinted:
			fmt.Fprintln(out, p)
		case shown == MaxPrinted+1:
			fmt.Fprintln(out, "… and more")
		}
	}
}

// Count returns "1 record" or "2 records".
func Count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %s", n, plural(noun))
}

// plural returns the plural of a noun: "records", "pushes" or "repositories".
func plural(noun string) string {
	if strings.HasSuffix(noun, "sh") {
		return noun + "es"
	}
	if stem, ok := strings.CutSuffix(noun, "ry"); ok {
		return stem + "ries"
	}
	return noun + "s"
}

// Size formats a number of bytes, such as "1.5 MiB".
func Size(n int64) string { return terminal.Size(n) }

// WithReason returns a state and, if there is one, its reason.
func WithReason(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}
