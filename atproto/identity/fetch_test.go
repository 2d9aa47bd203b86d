package identity

import "testing"

func TestSourceURL(t *testing.T) {
	t.Parallel()
	const plc = "https://plc.example.com"
	for did, want := range map[string]string{
		"did:plc:ewvi7nxzyoun6zhxrhs64oiz": plc + "/did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		"did:web:registry.example.org":     "https://registry.example.org/.well-known/did.json",
		"did:web:localhost":                "http://localhost/.well-known/did.json",
		"did:web:localhost%3A5000":         "http://localhost:5000/.well-known/did.json",
		"did:web:example.com%3A443":        "",
		"did:web:example.com:path":         "",
		"did:web:127.0.0.1":                "",
		"did:web:10.0.0.1":                 "",
		"did:key:zQ3shokFTS3brHcD":         "",
		"registry.example.org":             "",
	} {
		got, err := NewSource(did, plc)
		if (err != nil) != (want == "") || err == nil && got.URL.String() != want {
			t.Errorf("%s: got %+v, %v, want %s", did, got, err, want)
		}
	}
}
