package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// The AppView is asked about each post that is written, and after a restart about recent
// posts of the account.
func TestAppView(t *testing.T) {
	t.Parallel()
	asked := make(chan []string, 100)
	network := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uris := r.URL.Query()["uris"]
		asked <- append(slices.Clone(uris), r.URL.Path)
		posts := []map[string]string{}
		for _, uri := range uris {
			posts = append(posts, map[string]string{"uri": uri})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"posts": posts})
	}))
	defer network.Close()
	debug := freeAddr(t)
	s := newServer(t, settings{options: fmt.Sprintf("announce: {tags: [\"*\"], collect: 300ms, cooldown: 0s, daily_limit: 0, appview: %q}", network.URL)})
	s.edit("  draintimeout: 10s", fmt.Sprintf("  draintimeout: 10s\n  debug: {addr: %q, prometheus: {enabled: true}}", debug))
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	s.waitDrained()
	posts := s.records(t, s.did, postCollection)
	if len(posts) != 1 {
		t.Fatalf("%d posts", len(posts))
	}
	for _, start := range []string{"first", "second"} {
		select {
		case got := <-asked:
			if want := []string{posts[0].URI, "/xrpc/app.bsky.feed.getPosts"}; !slices.Equal(got, want) {
				t.Errorf("%s start: asked about %s, want %s", start, got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s start: not asked\n%s", start, s.log)
		}
		var health struct{ AppView struct{ Host, State string } }
		eventually(t, "the posts are indexed", time.Minute, func() bool {
			s.json(t, "/tidings/api/v1/health", &health)
			return "http://"+health.AppView.Host == network.URL && health.AppView.State == "current"
		})
		if start == "first" {
			if got := metric(t, debug, "tidings_announce_index_delay_seconds_count"); got != "1" {
				t.Errorf("the metric counts %q delays", got)
			}
			s.kill()
			s.start()
		}
	}
}
