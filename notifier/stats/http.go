package stats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const maxLimit = 1000

// number parses a parameter from 1 to most.
func number(q *http.Request, name string, byDefault, most int) (int, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s must be a number from 1 to %d", name, most)
	}
	return n, nil
}

// oneOf parses a parameter that is one of words. The first is the default.
func oneOf(q *http.Request, name string, words ...string) (string, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return words[0], nil
	}
	if slices.Contains(words, s) {
		return s, nil
	}
	return "", fmt.Errorf("%s must be one of %s", name, strings.Join(words, ", "))
}

// respond writes v as JSON.
func respond(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, "InternalServerError", "cannot encode the response as JSON")
		return
	}
	write(w, http.StatusOK, b)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

func fail(w http.ResponseWriter, status int, name, message string) {
	failWith(w, status, name, message, false)
}

func failWith(w http.ResponseWriter, status int, name, message string, degraded bool) {
	b, _ := json.Marshal(struct {
		Error    string `json:"error"`
		Message  string `json:"message"`
		Degraded bool   `json:"degraded,omitempty"`
	}{name, message, degraded})
	write(w, status, b)
}

func badRequest(w http.ResponseWriter, err error) {
	fail(w, http.StatusBadRequest, "InvalidRequest", err.Error())
}

func (a *api) unavailable(w http.ResponseWriter, err error) {
	if !errors.Is(err, context.Canceled) { // the client has gone
		a.log.Error("cannot read the counts", "error", err)
	}
	fail(w, http.StatusServiceUnavailable, "Unavailable", "the counts cannot be read at the moment")
}
