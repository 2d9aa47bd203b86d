package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// ErrNotRunning means that no process serves the admin API of a data folder.
var ErrNotRunning = errors.New("the registry is not running")

const (
	// clientTimeout limits a call. The longest wait for a sink to finish its batch.
	clientTimeout = time.Minute
	// maxAnswer is how much of a response is read, in bytes.
	maxAnswer = 64 << 20
)

// A Client calls the admin API of the process that has a data folder open.
type Client struct{ http http.Client }

// NewClient returns a client for a data folder.
func NewClient(dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		addr, release, err := address(dir)
		if err != nil {
			return nil, err
		}
		defer release()
		return new(net.Dialer).DialContext(ctx, "unix", addr)
	}
	return &Client{http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// A StatusError is the response of a request that failed.
type StatusError struct {
	Status int
	Problem
}

func (e *StatusError) Error() string { return e.Message }

// Call sends a request, and decodes the response into v unless that is nil. The error is
// ErrNotRunning, a *StatusError, or one of the connection.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, v any) error {
	res, err := c.send(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("call the admin API: %w", err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode the answer of the admin API: %w", err)
	}
	return nil
}

// send sends a request, and returns the response of one that has succeeded, whose body the
// caller closes. The error is that of Call.
func (c *Client) send(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://tidings"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return do(&c.http, r)
}

// do is send for a request.
func do(c *http.Client, r *http.Request) (*http.Response, error) {
	res, err := c.Do(r)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("call the admin API: %w", err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	failed := &StatusError{Status: res.StatusCode}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil || json.Unmarshal(body, &failed.Problem) != nil || failed.Message == "" {
		failed.Message = "the admin API answered " + res.Status
	}
	return nil, failed
}
