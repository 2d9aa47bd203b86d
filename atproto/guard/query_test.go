package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// server is an http.RoundTripper.
type server func(*http.Request) (*http.Response, error)

func (s server) RoundTrip(req *http.Request) (*http.Response, error) { return s(req) }

// endless is a body that never ends: it sends zeros, or nothing.
type endless struct {
	silent context.Context // nil: zeros
	sent   int
}

func (b *endless) Read(p []byte) (int, error) {
	if b.silent != nil {
		<-b.silent.Done()
		return 0, b.silent.Err()
	}
	b.sent += len(p)
	return len(p), nil
}

func (b *endless) Close() error { return nil }

func query(t *testing.T, s server) error {
	t.Helper()
	to := &url.URL{Scheme: "https", Host: "a.example.com"}
	client := Client(to)
	client.Transport = s
	return Query(t.Context(), client, to, "com.example.get", url.Values{"uri": {"at://one", "at://two"}}, 64<<10, &struct{}{})
}

func TestQuery(t *testing.T) {
	t.Parallel()
	respond := func(status int, retryAfter, body string) server {
		return func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}}, Body: io.NopCloser(strings.NewReader(body))}, nil
		}
	}
	for name, c := range map[string]struct {
		server server
		want   string
	}{
		"valid":         {respond(200, "", `{}`), "<nil>"},
		"invalid":       {respond(200, "", `<html>`), "com.example.get: invalid answer: invalid character '<' looking for beginning of value"},
		"XRPC error":    {respond(400, "", `{"error":"InvalidRequest","message":"no\nmore"}`), "status 400: InvalidRequest: no more"},
		"redirect":      {respond(302, "", `moved`), "status 302: moved"},
		"binary error":  {respond(502, "", "a\x00b\xff"+strings.Repeat("c", 400)), "status 502: a b " + strings.Repeat("c", 296) + "…"},
		"no connection": {func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }, "no route"},
		"largest":       {respond(200, "", `{"a":"`+strings.Repeat("x", 64<<10-8)+`"}`), "<nil>"},
		"too large":     {respond(200, "", `{"a":"`+strings.Repeat("x", 64<<10-7)+`"}`), "com.example.get: the answer is larger than 64 KiB"},
	} {
		if got := fmt.Sprint(query(t, c.server)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	_ = query(t, func(req *http.Request) (*http.Response, error) {
		if got, want := req.Method+" "+req.URL.String(), "GET https://a.example.com/xrpc/com.example.get?uri=at%3A%2F%2Fone&uri=at%3A%2F%2Ftwo"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		return nil, errors.New("seen")
	})
}

func TestQueryEndlessResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, status := range []int{200, 500} {
			zeros := &endless{}
			err := query(t, func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Body: zeros}, nil
			})
			if err == nil || zeros.sent > 128<<10 {
				t.Errorf("status %d: read %d bytes, then: %v", status, zeros.sent, err)
			}
			begun := time.Now()
			err = query(t, func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Body: &endless{silent: req.Context()}}, nil
			})
			if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took != 20*time.Second {
				t.Errorf("status %d: after %s: %v", status, took, err)
			}
		}
	})
}

func TestRetryIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(30 * time.Minute).UTC().Format(http.TimeFormat)
		for _, c := range []struct {
			failures int
			header   string
			want     time.Duration // or a quarter more
		}{
			{0, "", 10 * time.Second},
			{3, "", 80 * time.Second},
			{100, "", time.Hour},
			{0, "600", 10 * time.Minute},
			{0, "-600", 10 * time.Second},
			{0, "1e9", 10 * time.Second},
			{0, "999999999", 24 * time.Hour},
			{0, "99999999999999999999", 10 * time.Second},
			{0, date, 30 * time.Minute},
			{100, "600", time.Hour},
		} {
			err := NewError(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {c.header}}}, nil)
			if got := RetryIn(c.failures, fmt.Errorf("query: %w", err)); got < c.want || got > c.want*5/4 {
				t.Errorf("after %d failures and Retry-After %q: %s, want %s", c.failures, c.header, got, c.want)
			}
		}
	})
}
