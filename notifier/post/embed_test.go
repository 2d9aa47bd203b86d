package post

import (
	"crypto/sha256"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Posts with pictures are valid posts of the network, and without them again what they
// were.
func TestSetPicture(t *testing.T) {
	t.Parallel()
	for _, tc := range cases {
		record, err := Compose(tc.facts, tc.langs, when)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := Encode(record)
		if err != nil {
			t.Fatal(err)
		}
		_, p := tc.facts.Card("registry.example.com")
		if err := SetPicture(record, p); err == nil {
			t.Errorf("%s: a picture without a CID: got no error", tc.name)
		}
		p.CID, p.Size, p.MediaType = block.Digest(sha256.Sum256(nil)).BlobCID().String(), 12_345, "image/png"
		if err := SetPicture(record, p); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		validate(t, record)
		encoded, err := Encode(record)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		blobs, err := lexicon.BlobsIn(encoded)
		if err != nil || len(blobs) != 1 || blobs[0].Ref.String() != p.CID || blobs[0].Size != p.Size || blobs[0].MimeType != p.MediaType {
			t.Errorf("%s: got the blobs %v, %v", tc.name, blobs, err)
		}
		embed := record["embed"].(map[string]any)["$type"]
		if want := map[bool]string{true: "app.bsky.embed.images", false: "app.bsky.embed.external"}[tc.facts.Link == ""]; embed != want {
			t.Errorf("%s: got %s, want %s", tc.name, embed, want)
		}
		RemovePicture(record)
		if again, err := Encode(record); err != nil || string(again) != string(plain) {
			t.Errorf("%s: without the picture: got another post, %v", tc.name, err)
		}
	}
}

// The size and type of a picture are limited by the schema.
func TestSetPictureLimits(t *testing.T) {
	t.Parallel()
	id := block.Digest(sha256.Sum256(nil)).BlobCID().String()
	for name, p := range map[string]Picture{
		"too large":                  {CID: id, Size: 2_000_001, MediaType: "image/png"},
		"too large, as a preview":    {CID: id, Size: 1_000_001, MediaType: "image/png", Link: "https://h.example/"},
		"not a picture, as an image": {CID: id, Size: 1, MediaType: "text/plain"},
		"an invalid link":            {CID: id, Size: 1, MediaType: "image/png", Link: "javascript:alert(1)"},
	} {
		record, err := Compose(Facts{Repository: "app", Tags: []string{"v1"}}, nil, when)
		if err != nil {
			t.Fatal(err)
		}
		if err = SetPicture(record, p); err == nil {
			_, err = Encode(record)
		}
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestCard(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0", 64)
	f := Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", "latest"}, Digest: digest, Size: 45_230_000, Layers: 2, LayerSizes: []int64{40e6, 5e6},
		Platforms: []string{"linux/amd64", "unknown/unknown"},
	}
	drawn, p := f.Card("registry.example.com")
	if got, want := p, (Picture{Alt: "oss/app:v1.2.3 on registry.example.com: 45.2 MB, 2 layers, linux/amd64. A bar shows the sizes of the layers."}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if drawn.Size != "45.2 MB" || drawn.Layers != 2 || drawn.Version != "v1.2.3" || !reflect.DeepEqual(drawn.Platforms, []string{"linux/amd64"}) {
		t.Errorf("got %+v", drawn)
	}
	f.Link, f.Images, f.Platforms = "https://h.example/", 8, numbered("linux/arm/v%d", 8)
	drawn, p = f.Card("")
	if got, want := p, (Picture{
		Link: f.Link, Title: "oss/app:v1.2.3",
		About: "up to 45.2 MB, linux/arm/v0, linux/arm/v1, linux/arm/v2, linux/arm/v3, linux/arm/v4, linux/arm/v5 and 2 more",
	}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if drawn.Size != "up to 45.2 MB" || drawn.Layers != 0 || len(drawn.Platforms) != 8 {
		t.Errorf("got %+v", drawn)
	}
	if _, p := (Facts{Repository: "app", Tags: []string{"v1"}, Digest: digest, Link: f.Link}).Card(""); p.About != digest {
		t.Errorf("nothing known: got %q, want the digest", p.About)
	}
	// The outbox keeps both.
	var again Picture
	raw, err := json.Marshal(p)
	if err == nil {
		err = json.Unmarshal(raw, &again)
	}
	if err != nil || again != p {
		t.Errorf("read from the outbox: got %+v, %v", again, err)
	}
}
