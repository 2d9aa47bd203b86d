package counter

import (
	"bytes"
	"fmt"
	"strings"
)

// patterns match as in `*trivy*`. Path globs won't do: a user agent is full of
// slashes that mean nothing.
type patterns struct {
	list []pattern
	fold bool
}

// pattern is what stands between its stars.
type pattern [][]byte

const (
	maxPatterns = 256
	maxSubject  = 512 // bytes looked at, so that a long header costs no more
)

func newPatterns(list []string, fold bool) (patterns, error) {
	if len(list) > maxPatterns {
		return patterns{}, fmt.Errorf("%d patterns, and %d are allowed", len(list), maxPatterns)
	}
	p := patterns{fold: fold}
	for i, s := range list {
		if strings.TrimSpace(s) == "" {
			return patterns{}, fmt.Errorf("pattern %d is empty: leave it out, or write * for all", i+1)
		}
		if len(s) > maxSubject {
			return patterns{}, fmt.Errorf("pattern %d is longer than %d bytes", i+1, maxSubject)
		}
		b := []byte(s)
		if fold {
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
	var room [maxSubject]byte
	b := room[:copy(room[:], s)]
	if p.fold {
		lower(b)
	}
	for _, one := range p.list {
		if one.match(b) {
			return true
		}
	}
	return false
}

// match takes the first place that fits for each part but the last, which
// must be at the end: if that fails, a later place fails too.
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

// fits tells whether b begins with part, in which ? stands for any byte. b is
// not shorter than part.
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
