package guard

import (
	"strings"
	"testing"
)

func TestParseServer(t *testing.T) {
	t.Parallel()
	for _, valid := range []string{
		"https://relay.example.com", "https://relay.example.com/", "https://relay.example.com:8443", "https://1.1.1.1",
		"http://localhost:2470", "http://127.0.0.1:2470", "https://[::1]:2470", "http://relay.localhost",
	} {
		if _, err := ParseServer(valid, "a relay", "https://relay.example.com"); err != nil {
			t.Errorf("%s: %v", valid, err)
		}
	}
	for invalid, want := range map[string]string{
		"":                              "not the address of a relay",
		"relay.example.com":             "not the address of a relay",
		"relay.example.com:443":         "not the address of a relay",
		"https://":                      "not the address of a relay",
		"https://a b":                   "not the address of a relay",
		"http://relay.example.com":      "only a relay on this machine can use http",
		"wss://relay.example.com":       "WebSocket address",
		"ftp://relay.example.com":       "neither https nor http",
		"https://relay.example.com/x":   "more than a host",
		"https://relay.example.com?x":   "more than a host",
		"https://u:p@relay.example.com": "can't have a password",
		"u:p@relay.example.com":         "can't have a password",
		"https://u:p@relay example.com": "can't have a password",
		"https://10.0.0.1":              "neither a public",
		"https://[fd00::1]":             "neither a public",
		"https://169.254.169.254":       "neither a public",
	} {
		_, err := ParseServer(invalid, "a relay", "https://relay.example.com")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "; use an address like https://relay.example.com") ||
			strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v", invalid, err)
		}
	}
}
