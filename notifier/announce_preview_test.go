package notifier

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// previews are those of a rig, from what its state has.
func (r *rig) previews(cfg *announce.Config, db state.Store) announce.Previews {
	return announce.Previews{
		Config: *cfg, Storage: r.Notifier.storage, Public: r.public, State: db, Account: owner, Now: r.now, Log: r.log,
	}
}

// The preview of an image is the post that it gets, to the byte, except its time.
func TestPreviewIsThePost(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]string{"with a link": "https://registry.test/oss/app", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := policy()
			cfg.Card, cfg.Host, cfg.Hashtags, cfg.Langs = true, "registry.test", []string{"oss"}, []string{"en"}
			cfg.Link = func(string, string, string) string { return link }
			cfg.Reference = func(repository, tag string) string { return "registry.test/" + repository + ":" + tag }
			r, m := newManualRig(t, cfg)
			a := image("a", 3).as("oss/app", "v1")
			r.storage.put(a)
			before, err := r.previews(cfg, nil).Of(t.Context(), "oss/app", a.Digest, []string{"v1"})
			if err != nil || before.Reason != "" || len(before.Picture) == 0 {
				t.Fatalf("%v, reason %q, a picture of %d bytes", err, before.Reason, len(before.Picture))
			}
			r.push(a)
			m.Pass(20 * time.Second)
			r.mustStep()
			got := r.posts()
			if len(got) != 1 {
				t.Fatalf("%d posts", len(got))
			}
			want := maps.Clone(got[0])
			preview := jsonOf(t, before.Record)
			delete(want, "createdAt")
			delete(want, "rkey") // the rig adds it
			delete(preview, "createdAt")
			if !reflect.DeepEqual(preview, want) {
				t.Errorf("the preview was\n%v\nthe post is\n%v", preview, want)
			}
		})
	}
}

// The decision is that of the sink, for each reason.
func TestPreviewDecision(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
	cfg.Exclude = func(tag string) bool { return tag == "v0" }
	r, m := newManualRig(t, cfg)
	posted, waits := image("posted", 1).as("oss/app", "v1"), image("waits", 1).as("oss/app", "v2")
	for _, p := range []Push{posted, waits} {
		r.push(p)
		m.Pass(20 * time.Second)
		r.mustStep()
	}
	next, private, other := image("next", 1), image("private", 1).as("secret/app", "v1"), image("other", 1).as("oss/other", "v1")
	chart := manifest(map[string]any{"config": descriptor("application/vnd.cncf.helm.config.v1+json", "chart", 2)}).as("oss/app", "chart")
	for _, p := range []Push{next.as("oss/app", "v3"), private, other, other.as("oss/other", "latest"), other.as("oss/other", "v0"), chart} {
		r.storage.put(p)
	}
	untagged := image("untagged", 1).as("oss/other", "")
	r.storage.put(untagged)
	uri := r.announced(1).PostURI
	for name, test := range map[string]struct {
		push    Push
		tags    []string
		reason  string // its beginning
		waiting bool
		post    bool
	}{
		"posted":          {other, []string{"v1"}, "", false, true},
		"its tags":        {other, nil, "", false, true},
		"another tag":     {other, []string{"latest"}, announce.ReasonNoTag, false, true},
		"a tag it lost":   {other, []string{"v7"}, "its tag was moved or deleted", false, true},
		"not public":      {private, []string{"v1"}, "not public", false, true},
		"a chart":         {chart, []string{"v1"}, "not announced, since its kind is", false, false},
		"without a tag":   {untagged, nil, "pushed without a tag", false, false},
		"announced":       {posted, []string{"v1"}, "announced before", false, true},
		"waits":           {waits, []string{"v2"}, "waiting: it was pushed before", true, true},
		"in the cooldown": {next.as("oss/app", "v3"), []string{"v3"}, "waiting: cooldown of the repository until ", true, true},
	} {
		got, err := r.previews(cfg, r.state).Of(t.Context(), test.push.Repository, test.push.Digest, test.tags)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.HasPrefix(got.Reason, test.reason) || test.reason == "" && got.Reason != "" || got.Waiting != test.waiting {
			t.Errorf("%s: reason %q, waiting %t", name, got.Reason, got.Waiting)
		}
		if (got.Record != nil) != test.post {
			t.Errorf("%s: post %v", name, got.Record)
		}
		if want := map[bool]string{true: uri}[name == "announced"]; got.PostURI != want {
			t.Errorf("%s: post %q, want %q", name, got.PostURI, want)
		}
	}
	got, err := r.previews(cfg, nil).Of(t.Context(), "oss/app", posted.Digest, []string{"v1"})
	if err != nil || got.Reason != "" {
		t.Errorf("without the state: %v, %q", err, got.Reason)
	}
}

// A preview with sample facts needs neither storage nor a state.
func TestPreviewSample(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Card = true
	r, _ := newManualRig(t, cfg)
	p := r.previews(cfg, nil)
	p.Storage = nil
	got, err := p.Sample()
	if err != nil || got.Image.Repository != "oss/app" || got.Reason != "" || len(got.Picture) == 0 || got.Record["embed"] == nil {
		t.Errorf("%v: %+v", err, got)
	}
}

// jsonOf returns a record as its JSON says it.
func jsonOf(t *testing.T, record map[string]any) (fields map[string]any) {
	t.Helper()
	encoded, err := post.Encode(record)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := lexicon.ToJSON(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}
