package faultproxy

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"
)

const (
	jsonType = "application/json; charset=utf-8"
	htmlType = "text/html"

	htmlPage    = "<!DOCTYPE html><title>Please wait</title><h1>Please wait</h1>"
	rateLimited = `{"error":"RateLimitExceeded","message":"Rate Limit Exceeded"}`
)

// dripInterval is the time between two bytes of an endless response.
const dripInterval = 10 * time.Millisecond

func (a *answer) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may be gone
}

// respond makes the call fail. A is the target's response, nil if the call was not
// delivered.
func (f *Fault) respond(w http.ResponseWriter, r *http.Request, a *answer, ended <-chan struct{}) {
	switch f.Kind {
	case Cut:
		panic(http.ErrAbortHandler)
	case Truncate:
		a.truncate(w)
	case Delay:
		hold(r.Context(), f.For)
		a.write(w)
	case BadGateway:
		respond(w, http.StatusBadGateway, htmlType, htmlPage)
	case HTML:
		respond(w, http.StatusOK, htmlType, htmlPage)
	case Endless:
		drip(w, r, ended)
	case RateLimit:
		respond(w, http.StatusTooManyRequests, jsonType, rateLimited)
	case RetryAfter:
		w.Header().Set("Retry-After", strconv.Itoa(int(f.For.Seconds())))
		respond(w, http.StatusTooManyRequests, jsonType, rateLimited)
	case RateLimitReset:
		w.Header().Set("RateLimit-Limit", "5000")
		w.Header().Set("RateLimit-Remaining", "0")
		w.Header().Set("RateLimit-Reset", strconv.FormatInt(time.Now().Add(f.For).Unix(), 10))
		w.Header().Set("RateLimit-Policy", "5000;w=3600")
		respond(w, http.StatusTooManyRequests, jsonType, rateLimited)
	}
}

func respond(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, body)
}

// truncate sends the first half of the response and closes the connection.
func (a *answer) truncate(w http.ResponseWriter) {
	if a != nil {
		maps.Copy(w.Header(), a.header)
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

// drip sends white space, which JSON may begin with, until the client goes away or the
// fault ends.
func drip(w http.ResponseWriter, r *http.Request, ended <-chan struct{}) {
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(http.StatusOK)
	tick := time.NewTicker(dripInterval)
	defer tick.Stop()
	for {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-ended:
			panic(http.ErrAbortHandler)
		case <-tick.C:
		}
	}
}

// hold returns after d, or when ctx ends.
func hold(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
