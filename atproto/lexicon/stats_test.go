package lexicon

import "testing"

// The keys are the first 16 bytes of a SHA-256 in base32, as Python computes them.
func TestStatsKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ owner, repository, want string }{
		{"did:web:registry.example.com", "oss/app", "g2cijyg4bp4gxwqczksasdru7e"},
		{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "app", "k4dy5pugrkcarv7i3owc4pchfm"},
	} {
		if got := StatsKey(c.owner, c.repository); got != c.want {
			t.Errorf("StatsKey(%q, %q) = %q, want %q", c.owner, c.repository, got, c.want)
		}
	}
}

func TestReadStats(t *testing.T) {
	t.Parallel()
	const now = "2024-01-01T00:00:00.000Z"
	want := Stats{OwnerDID: "did:web:a.example", Repository: "oss/app", PullCount: 3, PushCount: 1, LastPull: now, LastPush: now, UpdatedAt: now}
	cbor, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadStats(cbor); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	members := map[string]any{"$type": NSIDStats, "ownerDid": "did:web:a.example", "repository": "oss/app", "pullCount": 3, "pushCount": 1, "updatedAt": now, "PullCount": 9}
	if cbor, err = Encode(members); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadStats(cbor); err != nil || got.PullCount != 3 {
		t.Errorf("with another member named PullCount: got %+v, %v", got, err)
	}
	delete(members, "updatedAt")
	if cbor, err = Encode(members); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadStats(cbor); err == nil {
		t.Errorf("without updatedAt: got %+v", got)
	}
}
