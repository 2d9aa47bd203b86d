package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// A RefusedError is the error of a call that the hold refuses for good, because of what is
// in it: an InvalidOperation, a UserMismatch, QuotaExceeded, an InvalidRequest.
type RefusedError struct {
	Name    string // XRPC error name; "": the answer has none
	Message string
	Err     *pds.Error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

func newRefusedError(e *pds.Error) error { return &RefusedError{e.Name, e.Message, e} }

// Lost reports whether the call of an error may have been applied, so that Written has to
// be asked before it is repeated.
func Lost(err error) bool {
	var failed *pds.Error
	return errors.As(err, &failed) && failed.Outcome == pds.Unknown
}

const (
	minPause = 10 * time.Second // after a call that failed; doubled with each further one
	maxPause = 5 * time.Minute
	settle   = 10 * time.Second // until a hold has processed a call whose answer was lost
	limited  = 15 * time.Second // after a 429 that does not say how long to wait

	maxMessage = 300 // bytes of a hold's message that are kept
)

// notSent is the error of a call that was not sent, because of an error that concerns all
// calls.
func notSent(method string, err error) *pds.Error {
	e := &pds.Error{Method: method, Outcome: pds.Suspended, Err: err}
	var cause *pds.Error
	if errors.As(err, &cause) {
		e.Until = cause.Until
		if cause.Outcome == pds.Limited {
			e.Outcome = pds.Limited
		}
	}
	return e
}

// refused is the error of a call that is not sent because of what is in it.
func refused(outcome pds.Outcome, err error) error {
	return newRefusedError(&pds.Error{Method: lexicon.NSIDNotifyManifest, Name: "InvalidRequest", Message: guard.Printable(err.Error(), maxMessage), Outcome: outcome, Err: err})
}

// answerError is the error of an answer that is not 200. The token is hidden: a hold may
// repeat what it was sent.
func answerError(r request, a *answer, now time.Time) *pds.Error {
	e := &pds.Error{Method: r.method, Status: a.status}
	hide := func(text string, limit int) string {
		if r.token != "" {
			text = strings.ReplaceAll(text, r.token, "[secret]")
		}
		return guard.Printable(text, limit)
	}
	var named struct{ Error, Message string }
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch {
	case json.Unmarshal(a.content, &named) == nil:
		e.Name, e.Message = hide(named.Error, 64), hide(named.Message, maxMessage)
	case kind == "text/plain": // of a Go server's http.Error
		e.Message = hide(strings.TrimSpace(string(a.content)), maxMessage)
	}
	e.Outcome = outcome(e)
	if ahead := clockAhead(a.header, now); e.Outcome == pds.Suspended && ahead.Abs() > maxAhead {
		e.Err = fmt.Errorf("the clocks of this machine and the hold differ by %s, and tokens are valid for a minute: correct the clock that is wrong", ahead.Abs().Round(time.Second))
	}
	e.Until = now.Add(guard.RetryAfter(a.header.Get("Retry-After"), now))
	if e.Outcome == pds.Limited {
		e.Until = limitEnd(a.header, e.Until, now)
	}
	return e
}

// maxAhead is how far the hold's clock may be from ours before an error mentions it.
const maxAhead = 30 * time.Second

// clockAhead is how far the hold's clock is ahead of ours, by the Date of its answer.
func clockAhead(h http.Header, now time.Time) time.Duration {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return date.Sub(now)
}

// limitEnd is when a limit ends: at what Retry-After or ratelimit-reset (Unix seconds)
// say, whichever is later, but not later than in a day.
func limitEnd(h http.Header, until, now time.Time) time.Time {
	if reset, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil && time.Unix(reset, 0).After(until) {
		until = time.Unix(reset, 0)
	}
	if !until.After(now) {
		return now.Add(limited)
	}
	if most := now.Add(24 * time.Hour); until.After(most) {
		return most
	}
	return until
}

// outcome classifies an answer that is not 200. It differs from that of a PDS in what
// concerns one call only, and in that fewer answers are Unknown: a call that may have been
// applied may not be repeated, unless the hold has what the check needs.
func outcome(e *pds.Error) pds.Outcome {
	switch e.Name {
	case lexicon.ErrorInvalidOperation, lexicon.ErrorUserMismatch, lexicon.ErrorQuotaExceeded:
		return pds.Refused
	case "PayloadTooLargeError", "PayloadTooLarge":
		return pds.TooLarge
	case "RateLimitExceeded":
		return pds.Limited
	case "BadJwtReplay": // each token is sent once, so a proxy has repeated the call
		return pds.Unknown
	case "AuthMissing", "AuthRequired", "AuthenticationRequired", "ExpiredToken", "InvalidToken", "JwtExpired":
		return pds.Suspended
	}
	switch s := e.Status; {
	case strings.HasPrefix(e.Name, "BadJwt"):
		return pds.Suspended
	case s == http.StatusTooManyRequests:
		return pds.Limited
	case s == http.StatusRequestEntityTooLarge:
		return pds.TooLarge
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s < 300, s >= 500 && s != http.StatusNotImplemented:
		return pds.Unknown
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return pds.Suspended
	case s < 400, s == http.StatusNotFound, s == http.StatusMethodNotAllowed, s == http.StatusNotImplemented:
		return pds.Suspended // another program, or a redirect, which is not followed
	case e.Name == "" && e.Message == "":
		return pds.Suspended // the page of a proxy, which says nothing about this call
	}
	return pds.Refused
}

// note notes the result of a call for those that follow. It completes and returns the
// error.
func (h *Hold) note(err error) error {
	now := h.cfg.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	var failed *pds.Error
	if !errors.As(err, &failed) {
		h.failures, h.last, h.until, h.suspect, h.answered = 0, nil, time.Time{}, false, now
		return err
	}
	switch failed.Outcome {
	case pds.Refused, pds.TooLarge:
		h.failures, h.last, h.until, h.suspect = 0, nil, time.Time{}, false
		return newRefusedError(failed)
	case pds.Limited:
		h.failures = 0
	case pds.Unknown:
		h.suspect = true
	}
	if failed.Outcome == pds.Suspended && errors.Is(err, context.Canceled) {
		failed.Until = now // the caller does not want it any more, which says nothing about the hold
		return failed
	}
	if failed.Outcome != pds.Limited {
		if pause := now.Add(min(guard.RetryIn(h.failures, nil), maxPause)); failed.Until.Before(pause) {
			failed.Until = pause
		}
		h.failures++
	}
	h.until, h.last, h.lastAt = failed.Until, failed, now
	return failed
}

// ready returns an error while no call may be made. After a lost answer the hold is first
// asked something that has no effect: while it is away, or the proxy in front of it
// answers, no second call gets lost.
func (h *Hold) ready(ctx context.Context) error {
	if err := h.paused(lexicon.NSIDNotifyManifest, time.Time{}); err != nil {
		return err
	}
	h.mu.Lock()
	suspect := h.suspect
	h.mu.Unlock()
	if !suspect {
		return nil
	}
	if _, err := h.listLayers(ctx, "", 1, false); err != nil {
		return h.note(notSent(lexicon.NSIDNotifyManifest, fmt.Errorf("the hold does not answer after a lost response: %w", err)))
	}
	h.mu.Lock()
	h.suspect = false
	h.mu.Unlock()
	return nil
}

// paused returns an error before the end of a pause, or before a time.
func (h *Hold) paused(method string, before time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, why := before, errSettling
	if h.until.After(until) {
		until = h.until
		if h.last != nil {
			why = h.last
		}
	}
	if !h.cfg.Now().Before(until) {
		return nil
	}
	e := &pds.Error{Method: method, Outcome: pds.Limited, Planned: why == errSettling, Until: until, Err: fmt.Errorf("no calls before %s: %w", until.UTC().Format(time.RFC3339), why)}
	if h.last != nil && h.last.Outcome == pds.Suspended {
		e.Outcome = pds.Suspended
	}
	return e
}

var errSettling = errors.New("the hold may still be processing a call")
