package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	minBackoff = 10 * time.Second // after the first failure; doubled with each further one
	maxBackoff = time.Hour
	maxWait    = 24 * time.Hour // that a server may request
	maxText    = 300            // bytes of a server's text in an error
)

// Error is an error response of a server.
type Error struct {
	Status int
	Name   string        // of the XRPC error; "": the body is not one
	Text   string        // one line of about 300 bytes at most
	Wait   time.Duration // Retry-After; 0: none
}

func (e *Error) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Text) }

// NewError returns the error of a response with this body.
func NewError(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, Text: Printable(string(body), maxText), Wait: RetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	var named struct{ Error, Message string }
	if json.Unmarshal(body, &named) == nil && named.Error != "" {
		e.Name, e.Text = Printable(named.Error, maxText), Printable(named.Error+": "+named.Message, maxText)
	}
	return e
}

// RetryAfter parses the header Retry-After: seconds or a date (RFC 9110, 10.2.3). It
// returns 0 if the header is empty or invalid, and at most 24 hours.
func RetryAfter(header string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return max(0, min(wait, maxWait))
}

// RetryIn returns the pause before a retry after err, which followed so many failures in
// a row. It is at least what the server has requested.
func RetryIn(failures int, err error) time.Duration {
	wait := min(minBackoff<<min(failures, 20), maxBackoff)
	wait += rand.N(wait / 4) // so that clients do not retry at the same time
	var answer *Error
	if errors.As(err, &answer) {
		wait = max(wait, answer.Wait)
	}
	return wait
}

// Printable returns a server's text as one line of at most limit bytes and, if it is cut,
// an ellipsis.
func Printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// Query sends an XRPC query to a server and decodes the response, of at most limit bytes.
// It returns an *Error if the status of the response is not 200.
func Query(ctx context.Context, client *http.Client, server *url.URL, nsid string, query url.Values, limit int64, out any) error {
	u := server.JoinPath("xrpc", nsid)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tidings")
	resp, err := client.Do(req)
	if err != nil {
		return WithoutURL(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("%s: read answer: %w", nsid, err)
	}
	if resp.StatusCode != http.StatusOK {
		return NewError(resp, content)
	}
	if int64(len(content)) > limit {
		return fmt.Errorf("%s: the answer is larger than %d KiB", nsid, limit>>10)
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("%s: invalid answer: %w", nsid, err)
	}
	return nil
}

// WithoutURL removes the URL that net/http adds to its errors, which has the whole query.
func WithoutURL(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
