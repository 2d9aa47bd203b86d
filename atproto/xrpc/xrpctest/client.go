// Package xrpctest is an XRPC client for tests.
package xrpctest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Client calls the methods of a server and fails its test on unexpected results.
// % in methods, bodies and expected messages stands for DID.
type Client struct {
	testing.TB
	URL   string // http://host:port
	DID   string
	Token string // bearer token; empty: anonymous
}

// Do makes a request and reads the whole response.
func (c *Client) Do(r *http.Request) (*http.Response, []byte) {
	c.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp, body
}

// Request returns a request for a path, with body as JSON unless it is empty.
func (c *Client) Request(verb, path, body string) *http.Request {
	c.Helper()
	r, err := http.NewRequest(verb, c.URL+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return r
}

// Call calls a method whose response is JSON.
func (c *Client) Call(verb, method, body string) (int, map[string]any) {
	c.Helper()
	fill := strings.NewReplacer("%", c.DID)
	resp, raw := c.Do(c.Request(verb, "/xrpc/"+fill.Replace(method), fill.Replace(body)))
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		c.Fatalf("%s %s: %d %.200q is not JSON: %v", verb, method, resp.StatusCode, raw, err)
	}
	return resp.StatusCode, answer
}

// Want calls a method and checks the status and, for an error, its name and a part
// of its message.
func (c *Client) Want(verb, method, body string, status int, name, message string) map[string]any {
	c.Helper()
	got, answer := c.Call(verb, method, body)
	gotName, _ := answer["error"].(string)
	gotMessage, _ := answer["message"].(string)
	if got != status || gotName != name || !strings.Contains(gotMessage, strings.ReplaceAll(message, "%", c.DID)) {
		c.Errorf("%s %s %.200s: got %d %s %q, want %d %s %q", verb, method, body, got, gotName, gotMessage, status, name, message)
	}
	return answer
}
