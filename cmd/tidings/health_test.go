package main

import (
	"bytes"
	"testing"
)

// Events of private repositories change no anonymous response of the API, also while
// they are pending.
func TestPrivateEventsInvisible(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: "announce: {tags: [\"*\"], collect: 300ms, cooldown: 0s, daily_limit: 0}\nreserve: 8TiB"}) // the sinks pause
	s.start()
	get := func(path string, header ...string) []byte {
		t.Helper()
		res, body, err := s.do("GET", "/tidings/api/v1/"+path, "", nil, header...)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %v %v %s", path, res, err, body)
		}
		return body
	}
	before := map[string][]byte{"health": nil, "pushes": nil, "repositories": nil}
	for path := range before {
		before[path] = get(path)
	}
	all := get("health", s.token()...)
	for _, tag := range []string{"v1", "v2"} {
		s.push(t, "secret/app", tag, newImage(2))
		if status, err := s.get("secret/app", tag); status != 200 {
			t.Fatalf("pull: %d %v", status, err)
		}
	}
	for path, want := range before {
		if got := get(path); !bytes.Equal(got, want) {
			t.Errorf("%s changed after pushes and pulls of a private repository: was\n%sis\n%s", path, want, got)
		}
	}
	if got := get("health", s.token()...); bytes.Equal(got, all) || !bytes.Contains(got, []byte(`"depth":2`)) {
		t.Errorf("with the token: got\n%safter\n%s", got, all)
	}
}
