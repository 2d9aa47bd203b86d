package classify

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// patterns is a list of patterns such as `*trivy*`. They are not path globs: a slash in a
// user agent is an ordinary character.
type patterns struct {
	list     []pattern
	foldCase bool
}

// pattern is a pattern split at its stars.
type pattern [][]byte

// Limits of the patterns, since every request is compared with all of them.
const (
	MaxPatterns      = 256 // in one list
	maxPatternLength = 512 // in bytes; user agents and actors are cut to this length
)

// ValidatePattern returns an error if a pattern of Config is invalid.
func ValidatePattern(pattern string) error {
	if strings.TrimSpace(pattern) == "" {
		return errors.New("an empty pattern matches nothing; leave it out, or write * to match everything")
	}
	if len(pattern) > maxPatternLength {
		return fmt.Errorf("the pattern has %d bytes; at most %d are allowed", len(pattern), maxPatternLength)
	}
	return nil
}

func newPatterns(list []string, foldCase bool) (patterns, error) {
	if len(list) > MaxPatterns {
		return patterns{}, fmt.Errorf("%d patterns; at most %d are allowed", len(list), MaxPatterns)
	}
	p := patterns{foldCase: foldCase}
	for i, s := range list {
		if err := ValidatePattern(s); err != nil {
			return patterns{}, fmt.Errorf("pattern %d: %w", i+1, err)
		}
		b := []byte(s)
		if foldCase {
			lower(b)
		}
		p.list = append(p.list, bytes.Split(b, []byte("*")))
	}
	return p, nil
}

func (p patterns) match(s string) bool {
	if s == "" || len(p.list) == 0 {
		return false
	}
	var room [maxPatternLength]byte
	b := room[:copy(room[:], s)]
	if p.foldCase {
		lower(b)
	}
	for _, one := range p.list {
		if one.match(b) {
			return true
		}
	}
	return false
}

// match finds the leftmost match of each part except the last, which must be at the end.
// There is no backtracking: if the leftmost match fails, a later one fails as well.
func (p pattern) match(b []byte) bool {
	first, last := p[0], p[len(p)-1]
	if len(p) == 1 {
		return len(b) == len(first) && fits(first, b)
	}
	if len(b) < len(first)+len(last) || !fits(first, b) || !fits(last, b[len(b)-len(last):]) {
		return false
	}
	b = b[len(first) : len(b)-len(last)]
	for _, part := range p[1 : len(p)-1] {
		i := find(part, b)
		if i < 0 {
			return false
		}
		b = b[i+len(part):]
	}
	return true
}

func find(part, b []byte) int {
	if bytes.IndexByte(part, '?') < 0 {
		return bytes.Index(b, part)
	}
	for i := 0; i+len(part) <= len(b); i++ {
		if fits(part, b[i:]) {
			return i
		}
	}
	return -1
}

// fits reports whether b begins with part, in which ? stands for any byte. b is not
// shorter than part.
func fits(part, b []byte) bool {
	for i, c := range part {
		if c != '?' && c != b[i] {
			return false
		}
	}
	return true
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}
