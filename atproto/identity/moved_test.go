package identity

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

func TestCheckService(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ service, hostname, want string }{
		{"https://pds.example.com", "a.example.com", ""},
		{"https://pds.example.com:8443", "a.example.com", ""},
		{"http://localhost:2583", "localhost:5000", ""},
		{"", "a.example.com", "required; " + validService},
		{"pds.example.com", "a.example.com", `"pds.example.com" is not the URL of a host; ` + validService},
		{"https://pds.example.com/xrpc", "a.example.com", `"https://pds.example.com/xrpc" has more than a host; ` + validService},
		{"https://pds.example.com/", "a.example.com", `"https://pds.example.com/" has more than a host; ` + validService},
		{"https://pds.example.com?", "a.example.com", `"https://pds.example.com?" has more than a host; ` + validService},
		{"https://u:hunter2@pds.example.com", "a.example.com", "has a user name or a password, which everybody would read"},
		{"http://pds.example.com", "a.example.com", `"http://pds.example.com" is not https; http is only allowed on this machine; ` + validService},
		{"wss://pds.example.com", "a.example.com", `"wss://pds.example.com" is neither https nor http; ` + validService},
		{"https://localhost", "a.example.com", `"https://localhost" is this machine, which clients that resolve a.example.com cannot reach; ` + validService},
		{"https://A.example.com", "a.example.com", `"https://A.example.com" is this hold; remove moved_to while the account is here`},
	} {
		got := ""
		if err := CheckService(tc.service, tc.hostname); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("CheckService(%q, %q):\ngot  %s\nwant %s", tc.service, tc.hostname, got, tc.want)
		}
	}
}

func TestCheckPublicKey(t *testing.T) {
	t.Parallel()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for text, valid := range map[string]bool{
		public.Multibase(): true,
		public.DIDKey():    true,
		key.Multibase():    false,
		"did:web:hunter2":  false,
		"hunter2":          false,
		"":                 false,
	} {
		err := CheckPublicKey(text)
		if (err == nil) != valid {
			t.Errorf("CheckPublicKey(%q): got %v, want valid: %v", text, err, valid)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("CheckPublicKey(%q): the error contains the key: %v", text, err)
		}
	}
}
