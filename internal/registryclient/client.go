// Package registryclient deletes images through the HTTP API of a registry, as any client
// does, so that the registry notices.
package registryclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// timeout limits a request. Distribution reads all tags of a repository to delete a manifest.
const timeout = 5 * time.Minute

// maxBody is how much of a response is read, in bytes.
const maxBody = 64 << 10

// Errors of Delete that the operator can act on.
var (
	ErrNotFound = errors.New("the registry does not have it")
	ErrDisabled = errors.New("the registry refuses to delete: set storage.delete.enabled to true (and maintenance.readonly to false) in its configuration, and restart it")
	ErrLogin    = errors.New("the registry requires a login that may delete")
)

// Credentials are those of a user of the registry; the zero value is anonymous.
type Credentials struct{ User, Password string }

// A Client deletes images of one registry. It is not safe for concurrent use.
type Client struct {
	base  *url.URL // with the prefix of the registry, up to and including "/v2/"
	http  *http.Client
	login Credentials

	authorization string // of the last request that was accepted
	scope         string // that it is for; "": all
}

// New returns a client of the registry at an address such as https://registry.example.com,
// to which the registry's http.prefix is added. transport nil: the default.
func New(address string, transport http.RoundTripper, login Credentials) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("%q is no address of a registry, such as https://registry.example.com", address)
	}
	refuse := func(*http.Request, []*http.Request) error {
		return errors.New("the registry redirects; use the address to which it does")
	}
	return &Client{base: base.JoinPath("v2/"), http: &http.Client{Timeout: timeout, Transport: transport, CheckRedirect: refuse}, login: login}, nil
}

// Delete deletes a manifest, given its digest, or a tag. The error is ErrNotFound,
// ErrDisabled, ErrLogin or another one.
func (c *Client) Delete(ctx context.Context, repository, reference string) error {
	scope := "repository:" + repository + ":delete"
	if c.scope != "" && c.scope != scope {
		c.authorization = ""
	}
	res, body, err := c.send(ctx, repository, reference)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		if err := c.authorize(ctx, res.Header.Values("WWW-Authenticate"), scope); err != nil {
			return err
		}
		res, body, err = c.send(ctx, repository, reference)
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", repository, reference, err)
	}
	switch res.StatusCode {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		return nil
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusMethodNotAllowed:
		return ErrDisabled
	case http.StatusUnauthorized, http.StatusForbidden:
		return c.loginError(res.Status, body)
	}
	return fmt.Errorf("delete %s %s: the registry answered %s%s", repository, reference, res.Status, reason(body))
}

func (c *Client) send(ctx context.Context, repository, reference string) (*http.Response, []byte, error) {
	target := c.base.JoinPath(repository, "manifests", reference)
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, target.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	return c.do(r, c.authorization)
}

func (c *Client) do(r *http.Request, authorization string) (*http.Response, []byte, error) {
	r.Header.Set("User-Agent", "tidings")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return res, body, err
}

func (c *Client) loginError(status string, body []byte) error {
	if c.login.User == "" {
		return fmt.Errorf("%w: it answered %s%s; name a user with --user, whose password is read from --password-file or TIDINGS_PASSWORD", ErrLogin, status, reason(body))
	}
	return fmt.Errorf("%w: it answered %s%s to the user %s", ErrLogin, status, reason(body), c.login.User)
}

// reason is the reason in a body of the registry's API, after a colon; "" if there is none.
func reason(body []byte) string {
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	text := answer.Errors[0].Code + " " + answer.Errors[0].Message
	return ": " + strings.Map(printable, text[:min(len(text), 200)])
}

// printable drops control characters, which a terminal could interpret.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}
