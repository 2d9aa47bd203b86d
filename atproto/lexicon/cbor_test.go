package lexicon

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestUnmarshalInvalid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in string }{
		{"empty", ""},
		{"not an object", "01"},
		{"trailing byte", "a000"},
		{"long integer", "a161611801"},
		{"long map length", "b80161610a"},
		{"unsorted", "a2616201616101"},
		{"longer key first", "a262616101616201"},
		{"duplicate key", "a2616101616102"},
		{"integer key", "a10101"},
		{"indefinite map", "bf616101ff"},
		{"indefinite text", "a161617f6161ff"},
		{"float64", "a16161fb3ff8000000000000"},
		{"float16", "a16161f93c00"},
		{"undefined", "a16161f7"},
		{"other tag", "a16161c100"},
		{"link without prefix", "a16161d82a4101"},
		{"2^53", "a161611b0020000000000000"},
		{"-2^53", "a161613b001fffffffffffff"},
		{"-2^64", "a161613bffffffffffffffff"},
		{"invalid UTF-8", "a1616161ff"},
		{"truncated text", "a1616178"},
		{"huge list length", "a161619b00000000ffffffff"},
		{"huge map length", "bb00000000ffffffff"},
		{"reserved key $link", "a16161a165246c696e6b01"},
	} {
		in, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got, err := Unmarshal(in); err == nil {
			t.Errorf("%s: accepted as %v", c.name, got)
		}
	}
	lowest, _ := hex.DecodeString("a161613b001ffffffffffffe")
	if got, err := Unmarshal(lowest); err != nil || got["a"] != int64(-maxInteger) {
		t.Errorf("got %v, %v, want %d", got, err, -maxInteger)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"a0", "a16161f6", "a161618301f520", "a16161a1616243010203"} {
		raw, _ := hex.DecodeString(seed)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		object, err := Unmarshal(raw)
		if err != nil {
			return
		}
		out, err := Marshal(object)
		if err != nil || !bytes.Equal(out, raw) {
			t.Fatalf("%x was decoded as %v and encoded as %x, %v", raw, object, out, err)
		}
	})
}

func BenchmarkLayer(b *testing.B) {
	layer := Layer{
		Digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Size: 123456,
		MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", UserDID: "did:web:registry.example.com",
		Manifest:  ManifestURI("did:web:registry.example.com", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
		CreatedAt: "2024-01-01T00:00:00Z",
	}
	cbor, err := Encode(layer)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			_, _ = Encode(layer)
		}
	})
	b.Run("validate", func(b *testing.B) {
		for b.Loop() {
			_, _ = Validate(NSIDLayer, cbor)
		}
	})
	b.Run("json", func(b *testing.B) {
		for b.Loop() {
			_, _ = ToJSON(cbor)
		}
	})
}

func TestBlobsIn(t *testing.T) {
	t.Parallel()
	blob := `{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"image/png","size":7}`
	for raw, want := range map[string]int{
		`{"a":1}`:                                 0,
		`{"a":"$type","b":"blob"}`:                0,
		`{"a":` + blob + `}`:                      1,
		`{"a":[{"b":` + blob + `},` + blob + `]}`: 2,
	} {
		cbor, err := FromJSON([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := BlobsIn(cbor)
		if err != nil || len(blobs) != want {
			t.Errorf("%s: got %v, %v, want %d", raw, blobs, err, want)
		}
		for _, b := range blobs {
			if b.Size != 7 || b.MimeType != "image/png" {
				t.Errorf("%s: got %+v", raw, b)
			}
		}
	}
	if _, err := BlobsIn([]byte("\xa1\x65$type\x64blob")); err == nil {
		t.Error("accepted a malformed blob")
	}
}

// BenchmarkInput validates the input of an applyWrites of 200 layers.
func BenchmarkInput(b *testing.B) {
	write := `{"$type":"com.atproto.repo.applyWrites#create","collection":"io.atcr.hold.layer","value":{"$type":"io.atcr.hold.layer",
		"digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","size":123456,
		"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","manifest":"at://did:web:example.com/io.atcr.manifest/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		"userDid":"did:web:example.com","createdAt":"2024-01-01T00:00:00Z"}}`
	body := []byte(`{"repo":"did:web:example.com","writes":[` + write + strings.Repeat(","+write, 199) + `]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Input("com.atproto.repo.applyWrites", body); err != nil {
			b.Fatal(err)
		}
	}
}
