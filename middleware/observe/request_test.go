package observe

import (
	"net/http"
	"testing"
)

func TestIsManifest(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/v2/a/manifests/v1":              true,
		"/v2/a/b/manifests/sha256:00":     true,
		"/v2/a/manifests/b/manifests/v1":  true,
		"/v2/manifests/manifests/v1":      true,
		"/v2/a/manifests/":                false,
		"/v2/a/manifests":                 false,
		"/v2//manifests":                  false,
		"/v2/a/manifests/b/blobs/sha256":  false,
		"/v2/a/manifests/b/tags/list":     false,
		"/v2/_catalog":                    false,
		"/v2/":                            false,
		"/x/v2/a/manifests/v1":            false,
		"/tidings/api/v1/a/manifests/v1":  false,
		"/v2/a/tags/list/manifests/v1":    true, // the host has no such route, so nothing is recorded
		"/v2/a/manifests/v1/blobs/upload": false,
	} {
		if got := isManifest("/v2/", path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ remote, forwarded, real, want string }{
		{"192.0.2.1:4711", "", "", "192.0.2.1"},
		{"[2001:db8::1]:4711", "", "", "2001:db8::1"},
		{"192.0.2.1:4711", "198.51.100.1, 10.0.0.1", "", "198.51.100.1"},
		{"192.0.2.1:4711", "unknown", "198.51.100.2", "198.51.100.2"},
		{"192.0.2.1:4711", "unknown", "invalid", "192.0.2.1"},
		{"@", "", "", "@"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		r.Header.Set("X-Forwarded-For", c.forwarded)
		r.Header.Set("X-Real-Ip", c.real)
		if got := client(r); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
