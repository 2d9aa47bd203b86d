package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/announce"
)

type fakeAnnouncements struct{ err error }

func (f fakeAnnouncements) List(_ context.Context, match func(string) bool, cursor string, limit int) ([]announce.Announcement, string, error) {
	all := match == nil
	return []announce.Announcement{{URI: fmt.Sprint(cursor, limit, all, !all && match("oss/app"), !all && match("secret/app"))}}, "next", f.err
}

func (f fakeAnnouncements) Announcement(_ context.Context, uri string) (announce.Announcement, error) {
	return announce.Announcement{URI: uri}, f.err
}

func (f fakeAnnouncements) Withdraw(_ context.Context, uri string) (announce.Withdrawal, error) {
	return announce.Withdrawal{URI: uri, Missing: true}, f.err
}

// Requests for announcements have their parameters checked, and errors their status.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	const uri = "at://did:web:registry.example.com/app.bsky.feed.post/3mabcdefghijk"
	const path = "/v1/announcements"
	for _, test := range []struct {
		method, query string
		err           error
		status        int
		want          string
	}{
		{"GET", "", nil, 200, `"uri":"100 true false false"`},
		{"GET", "limit=7&cursor=c&repository=oss/**", nil, 200, `"uri":"c7 false true false"`},
		{"GET", "", nil, 200, `"cursor":"next"`},
		{"GET", "uri=" + url.QueryEscape(uri), nil, 200, `"uri":"` + uri + `"`},
		{"GET", "limit=0", nil, 400, "limit must be a number from 1 to 1000"},
		{"GET", "limit=1001", nil, 400, "limit must be a number from 1 to 1000"},
		{"GET", "repository=" + url.QueryEscape("oss/[a"), nil, 400, `repository \"oss/[a\": `},
		{"GET", "cursor=x", announce.ErrListCursor, 400, "InvalidRequest"},
		{"GET", "uri=x", announce.ErrPostURI, 400, "InvalidRequest"},
		{"DELETE", "uri=" + url.QueryEscape(uri), nil, 200, `{"uri":"` + uri + `","missing":true}`},
		{"DELETE", "uri=x", announce.ErrPostURI, 400, "InvalidRequest"},
		{"DELETE", "uri=x", fmt.Errorf("%w: x", announce.ErrUnknownPost), 404, "NotFound"},
		{"DELETE", "uri=x", announce.ErrPostDeleted, 409, "Conflict"},
		{"DELETE", "uri=x", announce.ErrRefused, 409, "Conflict"},
		{"DELETE", "uri=x", announce.ErrBusy, 503, "Unavailable"},
		{"DELETE", "uri=x", notifier.ErrNotReady, 503, "Unavailable"},
	} {
		h := New(Config{Letters: noLetters{}, Announcements: fakeAnnouncements{test.err}, Log: slog.New(slog.DiscardHandler)})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, path+"?"+test.query, nil))
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s with %v: %d %s, want %d and %s", test.method, test.query, test.err, w.Code, w.Body, test.status, test.want)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		w := httptest.NewRecorder()
		New(Config{Letters: noLetters{}, Log: slog.New(slog.DiscardHandler)}).ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "nothing is announced") {
			t.Errorf("%s without announcements: %d %s", method, w.Code, w.Body)
		}
	}
}

// noLetters are the dead letters of a data folder that is open.
type noLetters struct{ Letters }
