package post

import (
	"errors"
	"strings"
	"testing"
)

func TestBuilder(t *testing.T) {
	t.Parallel()
	b := new(builder)
	b.plain("né ")
	b.link("né", "https://example.com/né?a=b")
	b.link("", "https://example.com/") // no text, no facet
	b.plain("\xff")
	record, err := b.record(nil, when)
	if err != nil {
		t.Fatal(err)
	}
	validate(t, record)
	text := record["text"].(string)
	if want := "né né\uFFFD"; text != want {
		t.Errorf("got text %q, want %q", text, want)
	}
	facets := record["facets"].([]any)
	if len(facets) != 1 {
		t.Fatalf("got %d facets, want 1", len(facets))
	}
	if start, end := span(facets[0]); start != len("né ") || text[start:end] != "né" {
		t.Errorf("got a facet on %q at byte %d, want the second né", text[start:end], start)
	}

	b = new(builder)
	b.link("a", "mailto:a@example.com")
	b.plain("after")
	if _, err := b.record(nil, when); err == nil {
		t.Error("a link that is not http: got no error")
	}
	b = new(builder)
	b.plain(strings.Repeat("x", 301))
	if _, err := b.record(nil, when); !errors.Is(err, errTooLong) {
		t.Errorf("301 graphemes: got %v, want %v", err, errTooLong)
	}
}
