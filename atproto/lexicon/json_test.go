package lexicon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func readVectors[T any](t testing.TB, name string) (vectors []T) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	return vectors
}

func TestDataModelFixtures(t *testing.T) {
	t.Parallel()
	type vector struct {
		JSON json.RawMessage `json:"json"`
		CBOR string          `json:"cbor_base64"`
		CID  string          `json:"cid"`
	}
	for i, v := range readVectors[vector](t, "data-model-fixtures.json") {
		want, err := base64.RawStdEncoding.DecodeString(v.CBOR)
		if err != nil {
			t.Fatal(err)
		}
		got, err := FromJSON(v.JSON)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("vector %d: got %x, %v, want %x", i, got, err, want)
		}
		hash, _ := multihash.Sum(got, multihash.SHA2_256, -1)
		if c := cid.NewCidV1(cid.DagCBOR, hash).String(); c != v.CID {
			t.Errorf("vector %d: got %s, want %s", i, c, v.CID)
		}
		back, err := ToJSON(want)
		if err != nil {
			t.Fatal(err)
		}
		again, err := FromJSON(back)
		if err != nil || !bytes.Equal(again, want) {
			t.Errorf("vector %d: %s was encoded as %x, %v", i, back, again, err)
		}
	}
}

func TestDataModelVectors(t *testing.T) {
	t.Parallel()
	type vector struct {
		Note string          `json:"note"`
		JSON json.RawMessage `json:"json"`
	}
	for _, v := range readVectors[vector](t, "data-model-valid.json") {
		if _, err := FromJSON(v.JSON); err != nil {
			t.Errorf("%s: %v", v.Note, err)
		}
	}
	for _, v := range readVectors[vector](t, "data-model-invalid.json") {
		if got, err := FromJSON(v.JSON); err == nil {
			t.Errorf("%s: accepted as %x", v.Note, got)
		}
	}
}

func TestFromJSONInvalid(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, c := range []struct{ name, in, want string }{
		{"float", `{"a":1.5}`, "expected an integer (got 1.5) at $.a"},
		{"exponent with a fraction", `{"a":[1,1e-3]}`, "expected an integer (got 1e-3) at $.a[1]"},
		{"exponent too large", `{"a":1e16}`, "integer beyond 2^53-1 (got 10000000000000000) at $.a"},
		{"__proto__", `{"a":{"__proto__":1}}`, "invalid key __proto__ at $.a"},
		{"2^53", `{"a":9007199254740992}`, "integer beyond 2^53-1 (got 9007199254740992) at $.a"},
		{"-2^53", `{"a":-9007199254740992}`, "integer beyond"},
		{"beyond int64", `{"a":99999999999999999999999999}`, "integer beyond"},
		{"duplicate", `{"a":1,"b":{"c":1,"c":2}}`, `duplicate key "c" at $.b`},
		{"duplicate with an escape", `{"a":1,"\u0061":2}`, `duplicate key "a"`},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", "invalid UTF-8"},
		{"lone high surrogate", `{"a":"\ud800"}`, "invalid surrogate pair"},
		{"lone low surrogate", `{"a":"\udc00x"}`, "invalid surrogate pair"},
		{"two high surrogates", `{"a":"\ud800\ud800"}`, "invalid surrogate pair"},
		{"too deep", deep(33), "nested too deeply"},
		{"null", `null`, "expected an object"},
		{"list", `[]`, "expected an object"},
		{"empty", ``, "invalid JSON"},
		{"truncated", `{"a":`, "invalid JSON"},
		{"trailing data", `{} {}`, "invalid JSON"},
		{"trailing comma", `{"a":1,}`, "invalid JSON"},
		{"list with a trailing comma", `{"a":[1,]}`, "invalid JSON"},
		{"CIDv0", `{"a":{"$link":"QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"}}`, "invalid CID"},
		{"blob of negative size", `{"a":{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"a/b","size":-1}}`, "malformed blob at $.a"},
		{"invalid base64", `{"a":{"$bytes":"!"}}`, "invalid base64 at $.a"},
	} {
		got, err := FromJSON([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %x, %v, want an error with %q", c.name, got, err, c.want)
		}
	}
	for name, in := range map[string]string{
		"2^53-1":         `{"a":9007199254740991,"b":-9007199254740991}`,
		"surrogate pair": `{"a":"\ud83d\ude00"}`,
		"escaped slash":  `{"a":"\\ud800"}`,
		"32 levels":      deep(32),
		"padded bytes":   `{"a":{"$bytes":"AQ=="}}`,
		"legacy blob":    `{"a":{"cid":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity","mimeType":"a/b"}}`,
	} {
		cbor, err := FromJSON([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := ToJSON(cbor); err != nil {
			t.Errorf("%s: ToJSON: %v", name, err)
		}
	}
}

// An object that looks like a legacy blob is not changed.
func TestLegacyBlobUnchanged(t *testing.T) {
	t.Parallel()
	const in = `{"a":{"cid":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity","mimeType":"<&>"}}`
	cbor, err := FromJSON([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := ToJSON(cbor); err != nil || string(out) != in {
		t.Errorf("got %s, %v, want %s", out, err, in)
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	if _, err := Encode(map[string]any{"a": 1}); err == nil {
		t.Error("a record without $type was encoded")
	}
	a, err := Encode(Layer{Digest: "sha256:ab", Size: 1, CreatedAt: "2024-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(map[string]any{"$type": NSIDLayer, "digest": "sha256:ab", "size": 1, "mediaType": "", "manifest": "", "userDid": "", "createdAt": "2024-01-01T00:00:00Z"})
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("struct and map differ: %x, %x, %v", a, b, err)
	}
}

func FuzzFromJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,null,true,"x"],"$type":"a"}`, `{"a":{"$bytes":"AQ"}}`, `{"a":"\ud83d\ude00"}`, `{"a":-1.0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		cbor, err := FromJSON(raw)
		if err != nil {
			return
		}
		out, err := ToJSON(cbor)
		if err != nil {
			t.Fatalf("%s was encoded as %x, which cannot be decoded: %v", raw, cbor, err)
		}
		again, err := FromJSON(out)
		if err != nil || !bytes.Equal(cbor, again) {
			t.Fatalf("%s was encoded as %x, decoded as %s, encoded as %x, %v", raw, cbor, out, again, err)
		}
		// indigo encodes the record in the same way, except for legacy blobs and for
		// records that it refuses, such as those with a CIDv0.
		decoded, err := atdata.UnmarshalCBOR(cbor)
		if err != nil || bytes.Contains(cbor, []byte("mimeType")) {
			return
		}
		if want, err := atdata.MarshalCBOR(decoded); err != nil || !bytes.Equal(cbor, want) {
			t.Fatalf("%s was encoded as %x, by indigo as %x, %v", raw, cbor, want, err)
		}
	})
}
