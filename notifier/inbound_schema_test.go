package notifier

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
)

// notificationWith reports a push of oss/app:v1 with a manifest as JSON, which has to be
// valid by the published schema.
func notificationWith(t *testing.T, manifest, userDID string) notification {
	t.Helper()
	body := fmt.Sprintf(`{"repository":"oss/app","tag":"v1","userDid":%q,"manifestDigest":%q,"manifest":%s}`, userDID, digest.FromString(manifest), manifest)
	input, err := lexicon.Input(lexicon.NSIDNotifyManifest, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return notification{NotifyManifestInput: lexicon.ReadNotifyManifest(input), Issuer: issuer, Token: manifest}
}

// Whatever the published schema allows is recorded and counted once. Layers that are not
// valid in a record are left out, and layersCreated is the number of records.
func TestNotifyOddManifests(t *testing.T) {
	t.Parallel()
	var (
		a, b = digest.FromString("a").String(), digest.FromString("b").String()
		long = "application/vnd.example." + strings.Repeat("x", 232) // 256 bytes
		good = fmt.Sprintf(`{"digest":%q,"size":1,"mediaType":%q}`, a, v1.MediaTypeImageLayer)
	)
	layer := func(members string) string { return `{"layers":[` + good + `,{` + members + `}]}` }
	for name, test := range map[string]struct {
		manifest string
		want     map[string]string // media types of the records by digest
		reason   string
	}{
		"empty":                   {`{}`, nil, ""},
		"empty parts":             {`{"config":{},"subject":{},"layers":[{}],"manifests":[{"platform":{}}]}`, nil, "no record for 1 layer without a valid digest"},
		"only a digest":           {layer(`"digest":"` + b + `"`), map[string]string{a: v1.MediaTypeImageLayer, b: ""}, ""},
		"no digest":               {layer(`"size":1,"mediaType":"a/b"`), map[string]string{a: v1.MediaTypeImageLayer}, "no record for 1 layer without a valid digest"},
		"an invalid digest":       {layer(`"digest":"sha256:x","size":1`), map[string]string{a: v1.MediaTypeImageLayer}, "no record for 1 layer without a valid digest"},
		"a negative size":         {layer(`"digest":"` + b + `","size":-1`), map[string]string{a: v1.MediaTypeImageLayer}, "impossible size"},
		"the largest size":        {layer(`"digest":"` + b + `","size":9007199254740991`), map[string]string{a: v1.MediaTypeImageLayer}, "impossible size"},
		"a media type of 256":     {layer(`"digest":"` + b + `","mediaType":"` + long + `"`), map[string]string{a: v1.MediaTypeImageLayer, b: event.OtherMediaType}, "another media type"},
		"parameters of 244":       {layer(`"digest":"` + b + `","mediaType":"a/b; ` + strings.Repeat("x", 244) + `"`), map[string]string{a: v1.MediaTypeImageLayer, b: "a/b"}, "another media type"},
		"a digest twice":          {layer(`"digest":"` + a + `","size":2`), map[string]string{a: v1.MediaTypeImageLayer}, ""},
		"subject, unknown member": {`{"subject":{"digest":"` + b + `"},"x":{},"layers":[` + good + `]}`, map[string]string{a: v1.MediaTypeImageLayer}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			n := notificationWith(t, test.manifest, alice)
			want := fmt.Sprintf(`{"success":true,"operation":"push","statsUpdated":true,"layersCreated":%d,"postCreated":false}`, len(test.want))
			if got := r.notify(n); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			got := map[string]string{}
			for _, record := range r.list(lexicon.NSIDLayer) {
				got[record["digest"].(string)] = record["mediaType"].(string)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("records of %v, want %v", got, test.want)
			}
			r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 1})
			r.drain()
			pushes, err := r.Pushes(1, false)
			if err != nil || len(pushes) != 1 || pushes[0].State != stateDone ||
				!strings.Contains(pushes[0].Reason, test.reason) || (test.reason == "") != (pushes[0].Reason == "") {
				t.Errorf("pushes %+v, %v, want a reason with %q", pushes, err, test.reason)
			}
			if children := r.event(1).Children; len(children) != 0 {
				t.Errorf("children %q", children)
			}
			n.Token += " pull"
			r.notify(n.pulled())
			r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 1, counts.Pull: 1})
			if letters := r.letters(); len(letters) > 0 {
				t.Errorf("given up: %+v", letters)
			}
			r.consistent()
		})
	}
}

// The published schema has no media type of the config, and no artifactType. The kind
// is then determined from what it has.
func TestNotifyKinds(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	const layers = `{"mediaType":"` + v1.MediaTypeImageManifest + `","config":{"digest":"sha256:a","size":1},"layers":[{"mediaType":"%s"},{"mediaType":"%s"}]}`
	const ociLayer, dockerLayer = v1.MediaTypeImageLayerZstd, "application/vnd.docker.image.rootfs.diff.tar.gzip"
	for _, test := range []struct {
		manifest string
		want     event.Kind
	}{
		{fmt.Sprintf(layers, ociLayer, ociLayer), event.KindImage},
		{fmt.Sprintf(layers, dockerLayer, dockerLayer), event.KindImage},
		{fmt.Sprintf(layers, ociLayer, "application/x-tar"), event.KindArtifact},
		{fmt.Sprintf(layers, v1.MediaTypeEmptyJSON, v1.MediaTypeEmptyJSON), event.KindArtifact},
		{fmt.Sprintf(layers, "application/vnd.in-toto+json", "application/vnd.in-toto+json"), event.KindAttestation},
		{strings.Replace(fmt.Sprintf(layers, ociLayer, ociLayer), `{`, `{"subject":{"digest":"sha256:b"},`, 1), event.KindArtifact},
		{strings.Replace(fmt.Sprintf(layers, ociLayer, ociLayer), `"size":1`, `"mediaType":"application/vnd.example"`, 1), event.KindArtifact},
		{`{"layers":[{"mediaType":"` + ociLayer + `"}]}`, event.KindImage},
		{`{"config":{},"layers":[]}`, event.KindArtifact},
		{`{"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[{"mediaType":"` + v1.MediaTypeImageManifest + `"}]}`, event.KindIndex},
		{`{"manifests":[{"mediaType":"` + v1.MediaTypeImageManifest + `"}]}`, event.KindIndex},
		{`{}`, event.KindArtifact},
	} {
		n := notificationWith(t, test.manifest, alice)
		e, err := r.notifiedEvent((*inbound.Notification)(&n))
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != test.want {
			t.Errorf("%s: got %s, want %s", test.manifest, e.Kind, test.want)
		}
	}
}

// An image of the registry's own owner is announced as the published schema describes it.
func TestNotifyOwnOwnerAnnounced(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	r.notify(notificationWith(t, `{"config":{"digest":"x"},"layers":[{"mediaType":"`+v1.MediaTypeImageLayer+`"}]}`, owner))
	if posts := r.posts(); len(posts) != 1 {
		t.Errorf("%d posts", len(posts))
	}
}
