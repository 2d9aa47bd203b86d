package post_test

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/post/posttest"
)

// The golden files have the posts of the standard text, with the embed of a card, and of a
// template that uses everything. Package card has the golden cards of the same facts.
func TestAwkward(t *testing.T) {
	t.Parallel()
	parsed := post.MustTemplate(t, post.FullTemplate)
	all := posttest.Awkward()
	if len(all) < 40 {
		t.Errorf("got %d awkward facts, want at least 40", len(all))
	}
	for name, facts := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			standard, err := post.Compose(facts, []string{"en"}, post.When)
			if err != nil {
				t.Fatal(err)
			}
			_, picture := facts.Card("registry.example.com")
			picture.CID, picture.Size, picture.MediaType = block.Digest(sha256.Sum256(nil)).BlobCID().String(), 12_345, card.MediaType
			if err := post.SetPicture(standard, picture); err != nil {
				t.Fatal(err)
			}
			written, err := parsed.Compose(facts, []string{"en"}, post.When)
			if err != nil {
				t.Fatal(err)
			}
			post.Golden(t, "awkward "+name, map[string]any{"default": examine(t, standard, facts), "template": examine(t, written, facts)})
		})
	}
}

// examine checks a post, and returns it with its length and what its facets cover.
func examine(t *testing.T, record map[string]any, f post.Facts) map[string]any {
	t.Helper()
	post.CheckRecord(t, record)
	checkTargets(t, record, f)
	text := record["text"].(string)
	return map[string]any{"graphemes": post.Graphemes(text), "bytes": len(text), "facets": post.FacetsOf(record), "record": record}
}

// checkTargets checks that facets have only targets that come from the configuration.
func checkTargets(t *testing.T, record map[string]any, f post.Facts) {
	t.Helper()
	link, _ := post.NormalizeLink(f.Link)
	configured := append([]string{link, f.Mention.DID}, f.Hashtags...)
	all, _ := record["facets"].([]any)
	for _, facet := range all {
		if !slices.Contains(configured, post.Target(facet)) {
			t.Errorf("got a facet with the target %q", post.Target(facet))
		}
	}
}

func FuzzTemplate(f *testing.F) {
	add := func(text string, facts post.Facts) {
		f.Add(text, facts.Repository, strings.Join(facts.Tags, "\x1f"), facts.Size, facts.Layers, strings.Join(facts.Platforms, "\x1f"),
			facts.Reference, facts.Link, strings.Join(facts.Hashtags, "\x1f"), facts.Mention.Handle, facts.Annotations[posttest.TitleKey])
	}
	for _, facts := range posttest.Awkward() {
		add(post.FullTemplate, facts)
	}
	for _, text := range []string{"{{.Name}}", `{{link "a" .Link}}{{hashtag .Tag}}`, "{{range .Tags}}{{.}}{{else}}x{{end}}", `{{$x := link .Name .Link}}{{print $x $x}}`} {
		add(text, posttest.Awkward()["HTML"])
	}
	f.Fuzz(func(t *testing.T, text, repository, tags string, size int64, layers int, platforms, reference, link, hashtags, handle, title string) {
		parsed, err := post.ParseTemplate(text, []string{posttest.TitleKey})
		if err != nil {
			return
		}
		facts := post.Facts{
			Repository: repository, Tags: strings.Split(tags, "\x1f"), Size: size, Layers: layers, Platforms: strings.Split(platforms, "\x1f"),
			Reference: reference, Link: link, Hashtags: strings.Split(hashtags, "\x1f"), Mention: post.Mention{Handle: handle, DID: "did:web:alice.example.com"},
			Annotations: map[string]string{posttest.TitleKey: title},
		}
		start := time.Now()
		record, err := parsed.Compose(facts, nil, post.When)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		again, errAgain := parsed.Compose(facts, nil, post.When)
		if !reflect.DeepEqual(record, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("the same facts twice: got %v, %v, then %v, %v", record, err, again, errAgain)
		}
		if err == nil {
			post.CheckRecord(t, record)
		}
	})
}
