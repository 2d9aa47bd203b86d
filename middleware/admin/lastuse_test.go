package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

func TestLastUse(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	hour := since.Unix() / 3600
	rows := map[lastuse.Key]lastuse.Use{
		lastuse.OfTag("v1"): {Pushed: hour, Used: hour + 20}, lastuse.OfTag("v2"): {Pushed: hour + 10}, lastuse.OfDigest("sha256:1"): {Used: hour + 5},
	}
	dir := t.TempDir()
	handler := New(Config{Letters: &fakeLetters{}, Log: slog.New(slog.DiscardHandler), Uses: func(_ context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) (lastuse.Known, error) {
		switch repository {
		case "behind":
			return lastuse.Known{}, fmt.Errorf("%w (7)", ErrNotCounted)
		case "damaged":
			return lastuse.Known{}, errors.Join(visit(lastuse.OfTag("v1"), lastuse.Use{}), errors.New("damaged"))
		case "oss/app":
			for k, u := range rows {
				if err := visit(k, u); err != nil {
					return lastuse.Known{}, err
				}
			}
		}
		return lastuse.Known{Since: since, Missing: "those of b"}, nil
	}})
	server, err := Listen(dir, handler, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(context.Background()) })
	c := NewClient(dir)
	for _, hours := range []int64{0, 6, 7, 11, 12, 22} {
		want := maps.Clone(rows)
		after := since.Add(time.Duration(hours) * time.Hour)
		maps.DeleteFunc(want, func(_ lastuse.Key, u lastuse.Use) bool { return u.Last().Before(after) })
		if got, known, err := c.LastUse(t.Context(), "oss/app", after); err != nil || !known.Since.Equal(since) || known.Missing != "those of b" || !maps.Equal(got, want) {
			t.Errorf("after %d hours: %v since %v, %v; want %v", hours, got, known, err, want)
		}
	}
	if got, known, err := c.LastUse(t.Context(), "none", time.Time{}); err != nil || !known.Since.Equal(since) || known.Missing != "those of b" || len(got) != 0 {
		t.Errorf("of an unknown repository: %v, %v, %v", got, known, err)
	}
	var failed *StatusError
	if _, _, err := c.LastUse(t.Context(), "behind", time.Time{}); !errors.As(err, &failed) || failed.Status != 503 {
		t.Errorf("while events are pending: %v, want status 503", err)
	}
	if got, _, err := c.LastUse(t.Context(), "damaged", time.Time{}); err == nil {
		t.Errorf("an incomplete response is accepted: %v", got)
	}
	for _, query := range []url.Values{nil, {"repository": {"oss/app"}, "after": {"today"}}} {
		if err := c.Call(t.Context(), "GET", "/v1/lastuse", query, nil); !errors.As(err, &failed) || failed.Status != 400 {
			t.Errorf("%v: %v, want status 400", query, err)
		}
	}
	for tag, want := range map[string]int{"v1": 1, "v3": 0} {
		res, err := c.send(t.Context(), "GET", "/v1/lastuse", url.Values{"repository": {"oss/app"}, "tag": {tag}})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if lines := strings.Count(string(body), "\n"); lines != want+1 || !strings.Contains(string(body), fmt.Sprintf(`"rows":%d`, want)) {
			t.Errorf("%s: %s", tag, body)
		}
	}
}
