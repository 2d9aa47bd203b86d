package crawl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	maxResponse = 16 << 10 // bytes of a relay's response
	maxStatus   = 64       // bytes of a status in it
)

// relayClient is the client of a configured relay.
type relayClient struct {
	url    *url.URL
	client *http.Client
	body   []byte // of requestCrawl
	state  relayState
}

func newRelayClient(relay, hostname string) (*relayClient, error) {
	u, err := parseRelay(relay)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]string{"hostname": hostname})
	if err != nil {
		return nil, err
	}
	r := &relayClient{url: u, client: guard.Client(u), body: body}
	r.state.status.Relay = u.Host
	return r, nil
}

// crawl sends requestCrawl, or the older notifyOfUpdate if the relay does not support
// it.
func (r *relayClient) crawl(ctx context.Context) error {
	err := r.post(ctx, "com.atproto.sync.requestCrawl")
	var failed *guard.Error
	if !errors.As(err, &failed) {
		return err
	}
	switch failed.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return r.post(ctx, "com.atproto.sync.notifyOfUpdate")
	}
	return err
}

func (r *relayClient) post(ctx context.Context, nsid string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url.JoinPath("xrpc", nsid).String(), bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tidings")
	resp, err := r.client.Do(req)
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

// accountStatus is the status of an account at a relay.
type accountStatus struct {
	known  bool   // it knows the account
	active bool   // the account is active there
	status string // if not active, such as "deactivated"
	rev    string // of its last commit; "": not in the response
	host   string // status of this host if not active or idle, such as "banned"
}

// status queries the relay about an account.
func (r *relayClient) status(ctx context.Context, hostname, did string) (accountStatus, error) {
	got, err := r.repoStatus(ctx, did)
	if err != nil {
		return got, err
	}
	if got.known && got.active && got.rev == "" {
		if err := r.latestCommit(ctx, did, &got); err != nil {
			return got, err
		}
	}
	got.host = r.hostStatus(ctx, hostname)
	return got, nil
}

// repoStatus calls getRepoStatus. For a relay that does not support it, it returns an
// active account without a rev.
func (r *relayClient) repoStatus(ctx context.Context, did string) (accountStatus, error) {
	var repo struct {
		Active bool   `json:"active"`
		Status string `json:"status"`
		Rev    string `json:"rev"`
	}
	err := r.get(ctx, "com.atproto.sync.getRepoStatus", url.Values{"did": {did}}, &repo)
	switch {
	case unknownRepo(err):
		return accountStatus{}, nil
	case unknownMethod(err):
		return accountStatus{known: true, active: true}, nil
	case err != nil:
		return accountStatus{}, err
	}
	got := accountStatus{known: true, active: repo.Active, status: guard.Printable(repo.Status, maxStatus), rev: repo.Rev}
	if !got.active && got.status == "" {
		got.status = "inactive"
	}
	return got, nil
}

// latestCommit calls getLatestCommit, if the relay supports it, and completes got.
func (r *relayClient) latestCommit(ctx context.Context, did string, got *accountStatus) error {
	var commit struct {
		Rev string `json:"rev"`
	}
	err := r.get(ctx, "com.atproto.sync.getLatestCommit", url.Values{"did": {did}}, &commit)
	switch {
	case unknownRepo(err):
		got.known = false
	case inactiveRepo(err) != "":
		got.active, got.status = false, inactiveRepo(err)
	case err != nil && !unknownMethod(err):
		return err
	}
	got.rev = commit.Rev
	return nil
}

// hostStatus calls getHostStatus. It returns "" for a host that is active or idle, and
// after an error.
func (r *relayClient) hostStatus(ctx context.Context, hostname string) string {
	var host struct {
		Status string `json:"status"`
	}
	err := r.get(ctx, "com.atproto.sync.getHostStatus", url.Values{"hostname": {hostname}}, &host)
	if err != nil || host.Status == "active" || host.Status == "idle" {
		return ""
	}
	return guard.Printable(host.Status, maxStatus)
}

// unknownRepo reports whether a relay does not know the account, or has no commit of
// it.
func unknownRepo(err error) bool {
	var failed *guard.Error
	return errors.As(err, &failed) && (failed.Name == "RepoNotFound" || failed.Name == "AccountNotFound" || failed.Name == "RepoNotSynchronized")
}

// inactiveRepo returns the status in an error such as RepoDeactivated, "" for other
// errors.
func inactiveRepo(err error) string {
	var failed *guard.Error
	if !errors.As(err, &failed) {
		return ""
	}
	status, found := strings.CutPrefix(failed.Name, "Repo")
	switch status = strings.ToLower(status); status {
	case "deactivated", "takendown", "suspended", "deleted", "inactive":
		if found {
			return status
		}
	}
	return ""
}

// unknownMethod reports whether a relay does not support a method.
func unknownMethod(err error) bool {
	var failed *guard.Error
	if !errors.As(err, &failed) {
		return false
	}
	return failed.Status == http.StatusNotFound || failed.Status == http.StatusMethodNotAllowed || failed.Status == http.StatusNotImplemented ||
		failed.Name == "MethodNotImplemented" || failed.Status == http.StatusBadRequest && failed.Name == "InvalidRequest"
}

// get sends a query and decodes the response.
func (r *relayClient) get(ctx context.Context, nsid string, query url.Values, out any) error {
	return guard.Query(ctx, r.client, r.url, nsid, query, maxResponse, out)
}
