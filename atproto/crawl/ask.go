package crawl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

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

// crawl sends requestCrawl, or the older notifyOfUpdate if the relay does not support
// it.
func (a *asked) crawl(ctx context.Context) error {
	err := a.post(ctx, "com.atproto.sync.requestCrawl")
	var no *guard.Error
	if !errors.As(err, &no) {
		return err
	}
	switch no.Status {
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
	return guard.NewError(resp, text)
}
