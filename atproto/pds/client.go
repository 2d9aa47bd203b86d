package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	callTime    = 60 * time.Second // for a call, its answer included
	maxAnswer   = 8 << 20          // bytes; a page of 100 records of the usual size has 60 kB
	maxMessage  = 300              // bytes of a PDS's error message that are kept
	maxRedirect = 3                // within the allowed hosts
)

// newHTTPClient returns a client that follows redirects only to allowed hosts:
// another one would see the tokens and the records.
func newHTTPClient(allowed func(*url.URL) bool) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(q *http.Request, via []*http.Request) error {
			if !allowed(q.URL) {
				return fmt.Errorf("%s redirects to another host, %s: set service to the PDS itself", via[0].URL.Host, q.URL.Host)
			}
			if len(via) > maxRedirect {
				return fmt.Errorf("more than %d redirects", maxRedirect)
			}
			return nil
		},
	}
}

// parseService checks the URL of a PDS: a scheme and a host, and nothing else.
func parseService(service string) (*url.URL, error) {
	u, err := url.Parse(service)
	switch {
	case err != nil || u.Host == "":
		return nil, fmt.Errorf("invalid service %q: want a URL such as https://bsky.social", service)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("invalid service %q: the scheme must be https, or http for a PDS that is not on the network", service)
	case u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("invalid service %q: want only a scheme and a host", u.Redacted())
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// A request is one XRPC call.
type request struct {
	method string // NSID
	query  url.Values
	input  any   // JSON body of a procedure; nil: a query
	blob   *blob // body of a procedure in place of input
	post   bool
	repo   bool   // at the repo's host; false: at the service
	token  string // bearer; "": none
	secret string // in the input, besides the token; "": none
}

// A blob is a body that is not JSON.
type blob struct {
	mediaType string
	content   []byte
}

// body returns the body of the request; nil if it has none. net/http sets the
// Content-Length of a bytes.Reader.
func (r request) body() (mediaType string, body io.Reader, err error) {
	switch {
	case r.blob != nil:
		return r.blob.mediaType, bytes.NewReader(r.blob.content), nil
	case r.input == nil:
		return "", nil, nil
	}
	content, err := json.Marshal(r.input)
	if err != nil {
		return "", nil, err
	}
	return "application/json", bytes.NewReader(content), nil
}

// do makes the call and decodes the answer into out, unless that is nil. Every
// error is an *Error.
func (a *Account) do(ctx context.Context, r request, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	failed := func(status int, err error) error {
		return &Error{Method: r.method, Status: status, Outcome: Unknown, Err: guard.WithoutURL(err)}
	}
	host := a.service
	if r.repo {
		a.mu.Lock()
		host = a.host
		a.mu.Unlock()
	}
	u := host.JoinPath("xrpc", r.method)
	u.RawQuery = r.query.Encode()
	httpMethod := http.MethodGet
	if r.post {
		httpMethod = http.MethodPost
	}
	mediaType, body, err := r.body()
	if err != nil {
		return nil, &Error{Method: r.method, Outcome: Refused, Err: err}
	}
	q, err := http.NewRequestWithContext(ctx, httpMethod, u.String(), body)
	if err != nil {
		return nil, &Error{Method: r.method, Outcome: Refused, Err: err}
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", a.cfg.UserAgent)
	if mediaType != "" {
		q.Header.Set("Content-Type", mediaType)
	}
	if r.token != "" {
		q.Header.Set("Authorization", "Bearer "+r.token)
	}
	p, err := a.http.Do(q)
	if err != nil {
		return nil, failed(0, err)
	}
	defer p.Body.Close()
	content, err := io.ReadAll(io.LimitReader(p.Body, maxAnswer+1))
	switch {
	case err != nil:
		return p.Header, failed(p.StatusCode, err)
	case len(content) > maxAnswer:
		return p.Header, failed(p.StatusCode, fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20))
	case p.StatusCode != http.StatusOK:
		return p.Header, a.refusal(r, p, content)
	}
	if out == nil {
		return p.Header, nil
	}
	if kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type")); kind != "application/json" {
		return p.Header, failed(p.StatusCode, fmt.Errorf("the answer is %q, not application/json: is %s a PDS?", guard.Printable(kind, 64), host.Host))
	}
	if err := json.Unmarshal(content, out); err != nil {
		return p.Header, failed(p.StatusCode, fmt.Errorf("invalid answer: %w", err))
	}
	return p.Header, nil
}

// refusal is the error of an answer that is not 200.
func (a *Account) refusal(r request, p *http.Response, content []byte) *Error {
	e := &Error{Method: r.method, Status: p.StatusCode}
	var named struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if json.Unmarshal(content, &named) == nil {
		e.Name, e.Message = guard.Printable(r.hide(named.Error), 64), guard.Printable(r.hide(named.Message), maxMessage)
	}
	e.Outcome = outcome(e.Status, e.Name)
	if e.Outcome == Limited {
		e.Until = retryAt(p.Header, a.now())
	}
	return e
}

// hide replaces the secrets of the request in a text of the server, which may repeat what
// it was sent: errors are logged, and the reason why a push has no records is public.
func (r request) hide(text string) string {
	for _, secret := range []string{r.token, r.secret} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return text
}

// limitedFor is how long a call waits after a 429 that does not say. A PDS always says;
// proxies in front of one, whose limits are for seconds, often do not.
const limitedFor = 15 * time.Second

// maxLimited bounds what a service may ask for; its longest window is a day.
const maxLimited = 24 * time.Hour

// retryAt reads Retry-After (seconds or a date, RFC 9110) and ratelimit-reset
// (unix seconds), whichever is later.
func retryAt(h http.Header, now time.Time) time.Time {
	until := now
	later := func(t time.Time) {
		if t.After(until) {
			until = t
		}
	}
	later(now.Add(guard.RetryAfter(h.Get("Retry-After"), now)))
	if reset, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil {
		later(time.Unix(reset, 0))
	}
	if until.Equal(now) {
		return now.Add(limitedFor)
	}
	if most := now.Add(maxLimited); until.After(most) {
		return most
	}
	return until
}
