package notifier

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/post"
)

// A template writes the post with the configured annotations of the manifest; others do not
// reach the event.
func TestAnnounceTemplate(t *testing.T) {
	t.Parallel()
	const title = "org.opencontainers.image.title"
	cfg := shortWindows()
	var err error
	cfg.Annotations = []string{title}
	if cfg.Template, err = post.ParseTemplate(`{{.Name}} {{.Tag}}: {{index .Annotations "`+title+`"}}`, cfg.Annotations); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, cfg)
	p := image("annotated", 1)
	p.Payload = []byte(strings.Replace(string(p.Payload), "{", `{"annotations":{"`+title+`":"An app\nhttps://evil.example","other":"x"},`, 1))
	r.push(p.as("oss/app", "v1.0.0"))
	r.drain()
	posts := r.posts()
	if want := "oss/app v1.0.0: An app https://evil.example"; len(posts) != 1 || posts[0]["text"] != want || posts[0]["facets"] != nil {
		t.Fatalf("got %v, want the text %q without facets", posts, want)
	}
	if kept := r.event(1).Manifest.Annotations; kept != nil {
		t.Errorf("without keys the event has the annotations %q", kept)
	}
}
