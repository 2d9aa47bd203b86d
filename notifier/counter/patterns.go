package counter

import (
	"fmt"
	"strings"
)

// patterns match as in `*trivy*`. Path globs won't do: a user agent is full of
// slashes that mean nothing.
type patterns struct {
	list []string
	fold bool
}

const (
	maxPatterns = 256
	maxSubject  = 1024 // bytes looked at, so that a long header costs no more
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
		p.list = append(p.list, s)
	}
	return p, nil
}

func (p patterns) match(s string) bool {
	if s == "" {
		return false
	}
	s = s[:min(len(s), maxSubject)]
	for _, pattern := range p.list {
		if wildcard(pattern, s, p.fold) {
			return true
		}
	}
	return false
}

// wildcard goes back to the last * only, so it takes at most len(pattern) *
// len(s) steps.
func wildcard(pattern, s string, fold bool) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || same(pattern[p], s[i], fold)):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func same(a, b byte, fold bool) bool {
	return a == b || fold && lower(a) == lower(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
