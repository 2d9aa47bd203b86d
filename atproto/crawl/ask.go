package crawl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// asked is a configured relay.
type asked struct {
	url     *url.URL
	client  *http.Client
	body    []byte
	watched watched
}

func newAsked(relay, hostname string) (*asked, error) {
	u, err := parseRelay(relay)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]string{"hostname": hostname})
	if err != nil {
		return nil, err
	}
	a := &asked{url: u, client: guard.Client(u), body: body}
	a.watched.status.Relay = u.Host
	return a, nil
}

// answerError is an error response of a relay.
type answerError struct {
	status int
	name   string // of the XRPC error; "": the body is not one
	text   string
	wait   time.Duration // Retry-After; 0: none
}

func (e *answerError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.text) }

// crawl sends requestCrawl, or the older notifyOfUpdate if the relay does not support
// it.
func (a *asked) crawl(ctx context.Context) error {
	err := a.post(ctx, "com.atproto.sync.requestCrawl")
	var no *answerError
	if !errors.As(err, &no) {
		return err
	}
	switch no.status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return a.post(ctx, "com.atproto.sync.notifyOfUpdate")
	}
	return err
}

func (a *asked) post(ctx context.Context, nsid string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url.JoinPath("xrpc", nsid).String(), bytes.NewReader(a.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tidings")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	if err != nil {
		text = nil
	}
	return newAnswerError(resp, text)
}

func newAnswerError(resp *http.Response, body []byte) *answerError {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		seconds = 0
	}
	e := &answerError{status: resp.StatusCode, text: printable(string(body)), wait: time.Duration(max(0, min(seconds, 24*3600))) * time.Second}
	var named struct{ Error, Message string }
	if json.Unmarshal(body, &named) == nil && named.Error != "" {
		e.name, e.text = printable(named.Error), printable(named.Error+": "+named.Message)
	}
	return e
}

// printable returns a relay's text as one line of at most 300 bytes.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	return strings.ToValidUTF8(text[:min(len(text), 300)], "")
}
