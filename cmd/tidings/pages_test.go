package main

import (
	"net/http"
	"strings"
	"testing"
)

// An announced version has a page and is in the feeds, until its image is deleted, also if
// the process is killed. Private repositories have none.
func TestAnnouncedPages(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: `announce: {tags: ["v*"], collect: 0s, cooldown: 0s, daily_limit: 0}`})
	s.start()
	first := newImage(2)
	s.push(t, "oss/app", "v1.0.0", first)
	s.push(t, "oss/app", "v1.1.0", newImage(1))
	s.push(t, "oss/app", "build7", newImage(1))
	s.push(t, "secret/app", "v9.0.0", newImage(1))
	s.waitDrained()
	check := func(when string, want map[string]int, feed ...string) {
		t.Helper()
		for path, status := range want {
			if res, body, err := s.do("GET", path, "", nil); err != nil || res.StatusCode != status {
				t.Errorf("%s: %s: %v %v\n%s", when, path, res, err, body)
			}
		}
		for _, path := range []string{"/tidings/feed.atom", "/tidings/r/oss/app/feed.atom"} {
			_, body, err := s.do("GET", path, "", nil)
			if n := strings.Count(string(body), "<entry>"); err != nil || n != len(feed) {
				t.Errorf("%s: %s has %d entries, want %d: %v", when, path, n, len(feed), err)
			}
			for _, version := range feed {
				if !strings.Contains(string(body), "<title>oss/app:"+version+"</title>") {
					t.Errorf("%s: %s is missing %s", when, path, version)
				}
			}
		}
	}
	pages := map[string]int{
		"/tidings/": http.StatusOK, "/tidings/r/oss/app": http.StatusOK, "/tidings/r/oss/app/v1.0.0": http.StatusOK, "/tidings/r/oss/app/v1.1.0": http.StatusOK,
		"/tidings/r/oss/app/build7": http.StatusNotFound, "/tidings/r/secret/app": http.StatusNotFound, "/tidings/r/secret/app/v9.0.0": http.StatusNotFound,
		"/tidings/r/secret/app/feed.atom": http.StatusNotFound, "/tidings/style.css": http.StatusOK, "/tidings/icon.svg": http.StatusOK,
		"/tidings/api/v1/health": http.StatusOK,
	}
	check("announced", pages, "v1.0.0", "v1.1.0")
	s.kill()
	s.start()
	check("after a kill", pages, "v1.0.0", "v1.1.0")
	if res, body, err := s.do("DELETE", "/v2/oss/app/manifests/"+first.digest, "", nil); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("delete: %v %v %s", res, err, body)
	}
	s.waitDrained()
	pages["/tidings/r/oss/app/v1.0.0"] = http.StatusNotFound
	check("after its image was deleted", pages, "v1.1.0")
}
