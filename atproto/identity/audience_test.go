package identity

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

func TestCheckAudience(t *testing.T) {
	t.Parallel()
	for aud, want := range map[string]string{
		"did:web:registry.example.com":                 "",
		"did:web:registry.example.com#atcr_hold":       "",
		"did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto_pds": "",
		"":                                 "not a DID",
		"*":                                "not a DID",
		"#atcr_hold":                       "not a DID",
		"https://registry.example.com":     "not a DID",
		"did:key:zQ3shokFTS3brHcD":         "unsupported method",
		"did:web:registry.example.com#":    "invalid service ID",
		"did:web:registry.example.com#*":   "invalid service ID",
		"did:web:registry.example.com#a#b": "invalid service ID",
		"did:web:registry.example.com#a b": "invalid service ID",
		"did:web:registry.example.com#" + strings.Repeat("a", 65): "invalid service ID",
	} {
		err := CheckAudience(aud)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", aud, err, want)
		}
	}
}

// The document has an entry for the hold, which stays at its hostname when the account
// moves. A client that resolves the account's PDS finds the PDS.
func TestHoldService(t *testing.T) {
	t.Parallel()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	id, err := New("registry.example.com", key)
	if err != nil {
		t.Fatal(err)
	}
	for _, moved := range []*MovedTo{nil, {Service: "https://pds.example.com"}} {
		id.MovedTo = moved
		doc, err := id.Document()
		if err != nil {
			t.Fatal(err)
		}
		host := "https://registry.example.com"
		want := Service{"#atcr_hold", "AtcrHoldService", host}
		if moved != nil {
			host = moved.Service
		}
		if len(doc.Service) != 2 || doc.Service[0].ID != "#atproto_pds" || doc.Host() != host || doc.Service[1] != want {
			t.Errorf("moved to %v: got %+v", moved, doc.Service)
		}
		for aud, accepted := range map[string]bool{
			id.DID: true, id.DID + "#atproto_pds": true, id.DID + "#atcr_hold": true,
			id.DID + "#": false, id.DID + "#atcr": false, id.DID + "#*": false, "#atcr_hold": false, "*": false, "": false,
		} {
			if doc.HasAudience(aud) != accepted {
				t.Errorf("audience %q: got %v", aud, !accepted)
			}
		}
	}
}
