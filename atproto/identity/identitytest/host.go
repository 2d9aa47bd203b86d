// Package identitytest replaces the hosts of DID documents in tests.
package identitytest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Host is the transport of an identity.Source. It gives its answers one after the
// other, and the last one from then on.
type Host struct {
	Answers  []Answer
	Requests []string // "seconds since NewHost" and the URL
	start    time.Time
}

// Answer is a status and a body. Status 0 is a connection error, "no route".
type Answer struct {
	Status int
	Body   string
}

// NewHost returns a Host with at least one answer.
func NewHost(answers ...Answer) *Host { return &Host{Answers: answers, start: time.Now()} }

// RoundTrip implements http.RoundTripper.
func (h *Host) RoundTrip(r *http.Request) (*http.Response, error) {
	h.Requests = append(h.Requests, fmt.Sprintf("%.0f %s", time.Since(h.start).Seconds(), r.URL))
	a := h.Answers[0]
	if len(h.Answers) > 1 {
		h.Answers = h.Answers[1:]
	}
	if a.Status == 0 {
		return nil, errors.New("no route")
	}
	return &http.Response{StatusCode: a.Status, Status: http.StatusText(a.Status), Body: io.NopCloser(strings.NewReader(a.Body)), Header: http.Header{}}, nil
}
