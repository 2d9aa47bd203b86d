package card

import (
	"strconv"
	"strings"
)

// A setting is how a text is drawn: its lines in one style.
type setting struct {
	lines []string
	style style
}

// A step is a size, and how many lines the text may have at that size.
type step struct{ size, lines int }

// fit returns the first step at which s fits into a width. If it fits at none, its middle
// is left out at the last one.
func (r *ruler) fit(s string, w weight, width int, steps ...step) setting {
	for _, st := range steps {
		in := style{w, st.size}
		if lines := r.wrap(s, in, width, st.lines); lines != nil {
			return setting{lines, in}
		}
	}
	last := steps[len(steps)-1]
	in := style{w, last.size}
	low, high := 1, len([]rune(s)) // characters that fit, and that do not
	var best []string
	for low < high {
		n := (low + high) / 2
		if lines := r.wrap(shorten(s, n), in, width, last.lines); lines != nil {
			best, low = lines, n+1
		} else {
			high = n
		}
	}
	return setting{best, in}
}

// wrap divides s into up to two lines that fit into a width, as evenly as it can; nil if
// they do not. Lines end after a separator if possible.
func (r *ruler) wrap(s string, in style, width, lines int) []string {
	whole := r.width(s, in)
	if whole <= width {
		return []string{s}
	}
	if lines < 2 || whole > 2*width {
		return nil
	}
	for _, after := range []string{separators, ""} {
		if first, rest := r.split(s, in, width, after); first != "" {
			return []string{first, rest}
		}
	}
	return nil
}

// separators are the characters of names after which a line may end.
const separators = "-_./+: "

// split divides s after one of the characters, "" for any, so that both parts fit into a
// width and are as equal as possible.
func (r *ruler) split(s string, in style, width int, after string) (first, rest string) {
	best := -1
	for i, c := range s {
		end := i + len(string(c))
		if end == len(s) || after != "" && !strings.ContainsRune(after, c) {
			continue
		}
		head, tail := s[:end], s[end:]
		if r.width(strings.TrimSpace(head), in) > width {
			break
		}
		longer := max(r.width(strings.TrimSpace(head), in), r.width(strings.TrimSpace(tail), in))
		if longer <= width && (best < 0 || longer < best) {
			best, first, rest = longer, strings.TrimSpace(head), strings.TrimSpace(tail)
		}
	}
	return first, rest
}

// list joins as many names as fit into a width, and the number of the others. It may be
// "" if there is no room.
func (r *ruler) list(names []string, in style, width int) string {
	for n := len(names); n > 0; n-- {
		s := strings.Join(names[:n], "   ")
		if left := len(names) - n; left > 0 {
			s += "   +" + strconv.Itoa(left)
		}
		if r.width(s, in) <= width {
			return s
		}
	}
	return ""
}
