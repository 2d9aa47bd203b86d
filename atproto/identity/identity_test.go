package identity

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

func TestDIDWeb(t *testing.T) {
	t.Parallel()
	for hostname, want := range map[string]string{
		"registry.example.com": "did:web:registry.example.com",
		"localhost:5000":       "did:web:localhost%3A5000",
		"localhost":            "did:web:localhost",
	} {
		if got, err := DIDWeb(hostname); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", hostname, got, err, want)
		}
	}
	for hostname, want := range map[string]string{
		"":                             "required",
		"registry":                     "not a domain",
		"https://registry.example.com": "remove the scheme",
		"did:web:registry.example.com": "is a DID",
		"registry.example.com/path":    "path",
		"registry.example.com:5000":    "port",
		"Registry.example.com":         "capital letters",
		"127.0.0.1":                    "address",
		"127.0.0.1:5000":               "address",
		"[::1]:5000":                   "address",
		"::1":                          "address",
		"localhost:":                   "port",
		"localhost:0":                  "port",
		"localhost:70000":              "port",
		"localhost:05000":              "port",
		"localhost:5000%3A1":           "port",
		"a%3ab.example.com":            "not a domain",
		"a b.example.com":              "not a domain",
	} {
		got, err := DIDWeb(hostname)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "use a domain like") {
			t.Errorf("%q: got %q, %v, want an error with %q", hostname, got, err, want)
		}
	}
}

func TestLocalhostHasNoHandle(t *testing.T) {
	t.Parallel()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	id, err := New("localhost:5000", key)
	if err != nil || id.Handle != HandleInvalid || id.endpoint() != "http://localhost:5000" {
		t.Errorf("got %+v, %v", id, err)
	}
	if id.Matches(HandleInvalid) || id.Matches("localhost:5000") || !id.Matches("did:web:localhost%3A5000") {
		t.Error("a hold on localhost has other names than its DID")
	}
	doc, err := id.Document()
	if err != nil || doc.AlsoKnownAs != nil {
		t.Errorf("got %+v, %v, want no alsoKnownAs", doc, err)
	}
}
