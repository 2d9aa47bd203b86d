package stats

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

const maxLimit = 1000

// number parses a parameter between 1 and most; the default is usual.
func number(q *http.Request, name string, usual, most int) (int, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s must be a number from 1 to %d", name, most)
	}
	return n, nil
}

// oneOf parses a parameter that is one of words; the default is the first.
func oneOf(q *http.Request, name string, words ...string) (string, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return words[0], nil
	}
	for _, w := range words {
		if s == w {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s must be one of %q", name, words)
}

func badRequest(w http.ResponseWriter, err error) {
	fail(w, http.StatusBadRequest, "InvalidRequest", err.Error())
}

func (a *api) unavailable(w http.ResponseWriter, err error) {
	if !errors.Is(err, context.Canceled) { // the client has gone
		a.log.Error("can't read the counts", "error", err)
	}
	fail(w, http.StatusServiceUnavailable, "Unavailable", "the counts can't be read at the moment")
}
