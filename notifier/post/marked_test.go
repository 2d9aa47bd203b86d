package post

import (
	"testing"
	"time"
)

func TestMarked(t *testing.T) {
	t.Parallel()
	facts := Sample(nil)
	facts.Repository, facts.Platforms = "oss/äpp[1]", []string{"linux/amd64"}
	record, err := Compose(facts, nil, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	const want = `[oss/äpp\[1\]:v1.2.3](https://registry.example.com/oss/app) was pushed (also v1.2, latest)
45.2 MB, 7 layers, linux/amd64

docker pull registry.example.com/oss/app:v1.2.3

[@alice.example.com](did:web:alice.example.com) [#containers](#containers)`
	if got := Marked(record); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	facets := Facets(record)
	if len(facets) != 3 || facets[0].Text != "oss/äpp[1]:v1.2.3" || facets[1].Mention != "did:web:alice.example.com" || facets[2].Hashtag != "containers" {
		t.Errorf("facets %+v", facets)
	}
	for _, f := range facets {
		if Text(record)[f.Start:f.End] != f.Text {
			t.Errorf("bytes %d to %d are %q, want %q", f.Start, f.End, Text(record)[f.Start:f.End], f.Text)
		}
	}
}

// Facets that the text does not have are left out.
func TestFacetsInvalid(t *testing.T) {
	t.Parallel()
	facet := func(start, end int64, features ...any) any {
		return map[string]any{"index": map[string]any{"byteStart": start, "byteEnd": end}, "features": features}
	}
	link := map[string]any{"uri": "https://example.com"}
	record := map[string]any{"text": "abc", "facets": []any{facet(-1, 2, link), facet(2, 1, link), facet(0, 4, link), facet(0, 2), "x", facet(1, 2, link), facet(1, 3, link)}}
	if got := Marked(record); got != "a[b](https://example.com)c" {
		t.Errorf("got %q", got)
	}
	if got := Marked(map[string]any{}); got != "" {
		t.Errorf("a record without text: %q", got)
	}
}
