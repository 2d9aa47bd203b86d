package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/pds"
)

const (
	maxOutput = 64 << 10 // bytes of an answer to notifyManifest, and of an error
	maxPage   = 1 << 20  // bytes of a page of records; one of 100 layers has 40 kB
)

const keyHeader = "Idempotency-Key"

// A request is one XRPC call.
type request struct {
	method string // NSID
	query  url.Values
	input  []byte // of a procedure; nil: a query
	token  string
	key    string
	limit  int64 // bytes of the answer
}

// An answer is a complete answer, of any status.
type answer struct {
	status  int
	header  http.Header
	content []byte
}

// do sends a request to a server. An error is a *pds.Error: Unknown if the server may have
// received the request, otherwise Suspended.
func (h *Hold) do(ctx context.Context, client *http.Client, server *url.URL, r request) (*answer, *pds.Error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	failed := func(status int, err error) *pds.Error {
		e := &pds.Error{Method: r.method, Status: status, Outcome: pds.Unknown, Err: guard.WithoutURL(err)}
		if !sent.Load() {
			e.Outcome = pds.Suspended
		}
		return e
	}
	q, err := h.newRequest(ctx, server, r)
	if err != nil {
		return nil, failed(0, err)
	}
	p, err := client.Do(q)
	if err != nil {
		return nil, failed(0, err)
	}
	defer p.Body.Close()
	content, err := io.ReadAll(io.LimitReader(p.Body, r.limit+1))
	if err == nil && int64(len(content)) > r.limit {
		err = fmt.Errorf("the answer is larger than %d KiB", r.limit>>10)
	}
	if err != nil && (p.StatusCode == http.StatusOK || p.StatusCode >= 500) {
		return nil, failed(p.StatusCode, err)
	}
	return &answer{p.StatusCode, p.Header, content[:min(int64(len(content)), r.limit)]}, nil
}

func (h *Hold) newRequest(ctx context.Context, server *url.URL, r request) (*http.Request, error) {
	u := server.JoinPath("xrpc", r.method)
	u.RawQuery = r.query.Encode()
	httpMethod, body := http.MethodGet, io.Reader(nil)
	if r.input != nil {
		httpMethod, body = http.MethodPost, bytes.NewReader(r.input)
	}
	q, err := http.NewRequestWithContext(ctx, httpMethod, u.String(), body)
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", h.cfg.UserAgent)
	if r.input == nil {
		return q, nil
	}
	// net/http repeats a POST with an Idempotency-Key if a connection breaks. Not every
	// hold honors the key, and the token is good once. Without GetBody it cannot.
	q.GetBody = nil
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+r.token)
	if r.key != "" {
		q.Header.Set(keyHeader, r.key)
	}
	return q, nil
}
