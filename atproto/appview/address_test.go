package appview

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, good := range []string{Public, Off, "http://localhost:2584", "https://appview.example.com:8443"} {
		if err := Check(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                           "not the address of an AppView",
		"Off":                        "not the address of an AppView",
		"public.api.bsky.app":        "not the address of an AppView",
		"http://public.api.bsky.app": "only an AppView on this machine can use http",
		"https://10.0.0.1":           "neither a public nor a loopback address",
	} {
		err := Check(bad)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "; use an address like https://public.api.bsky.app, or off") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDefault(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"registry.example.com": Public, "bsky.social": Public, "pds.example.com:8443": Public,
		"localhost": Off, "localhost:5000": Off, "a.localhost": Off, "127.0.0.1:2583": Off, "[::1]:2583": Off, "::1": Off,
		"192.168.1.2": Off, "8.8.8.8:443": Off, "registry.internal": Off, "registry": Off, "": Off,
	} {
		if got := Default(host); got != want {
			t.Errorf("%q: got %s, want %s", host, got, want)
		}
	}
}
