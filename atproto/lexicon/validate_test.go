package lexicon

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/lexicon"
)

func TestRecordVectors(t *testing.T) {
	t.Parallel()
	defs, err := load(os.DirFS("testdata/catalog"))
	if err != nil {
		t.Fatal(err)
	}
	type vector struct {
		Name string          `json:"name"`
		Data json.RawMessage `json:"data"`
	}
	const record = "example.lexicon.record"
	for _, v := range readVectors[vector](t, "record-data-valid.json") {
		object, err := parseObject(v.Data, maxDepth)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if status, err := defs.validate(record, object); err != nil || status != StatusValid {
			t.Errorf("%s: %s, %v", v.Name, status, err)
		}
	}
	for _, v := range readVectors[vector](t, "record-data-invalid.json") {
		object, err := parseObject(v.Data, maxDepth)
		if err != nil {
			continue
		}
		if _, err := defs.validate(record, object); err == nil {
			t.Errorf("%s: accepted", v.Name)
		}
	}
}

// All definitions that records and inputs refer to are embedded.
func TestSchemasComplete(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var walk func(def any, base string)
	follow := func(ref, base string) {
		def, nsid, ok := schemas().resolve(ref, base)
		if !ok {
			t.Errorf("%s refers to %s, which is missing", base, ref)
			return
		}
		if key := nsid + ref; !seen[key] {
			seen[key] = true
			walk(def, nsid)
		}
	}
	walk = func(def any, base string) {
		switch def := def.(type) {
		case lexicon.SchemaRecord:
			walk(def.Record, base)
		case lexicon.SchemaProcedure:
			if def.Input != nil && def.Input.Schema != nil {
				walk(def.Input.Schema.Inner, base)
			}
		case lexicon.SchemaObject:
			for _, property := range def.Properties {
				walk(property.Inner, base)
			}
		case lexicon.SchemaArray:
			walk(def.Items.Inner, base)
		case lexicon.SchemaRef:
			follow(def.Ref, base)
		case lexicon.SchemaUnion:
			for _, ref := range def.Refs {
				follow(ref, base)
			}
		}
	}
	mains := 0
	for name, def := range schemas() {
		nsid, ok := strings.CutSuffix(name, "#main")
		if _, isObject := def.(lexicon.SchemaObject); ok && !isObject {
			mains++
			walk(def, nsid)
		}
	}
	if mains < 10 {
		t.Errorf("%d records and methods, want 10 or more", mains)
	}
}

// The path of a schema file is its NSID.
func TestSchemaPaths(t *testing.T) {
	t.Parallel()
	err := fs.WalkDir(files, "schemas", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json") {
			return err
		}
		nsid := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(path, "schemas/"), ".json"), "/", ".")
		if !slices.ContainsFunc(reflect.ValueOf(schemas()).MapKeys(), func(k reflect.Value) bool {
			return strings.HasPrefix(k.String(), nsid+"#")
		}) {
			t.Errorf("%s does not define %s", path, nsid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// post returns a valid post with these members changed.
func post(change map[string]any) map[string]any {
	facet := func(name, member, value string) map[string]any {
		return map[string]any{
			"index":    map[string]any{"byteStart": 0, "byteEnd": 7},
			"features": []any{map[string]any{"$type": "app.bsky.richtext.facet#" + name, member: value}},
		}
	}
	p := map[string]any{
		"$type": NSIDPost, "text": "oss/app was pushed", "createdAt": "2024-01-01T00:00:00Z", "langs": []string{"en"},
		"facets": []any{facet("link", "uri", "https://example.com"), facet("tag", "tag", "new"), facet("mention", "did", "did:web:a.example")},
		"embed":  card("https://example.com"),
	}
	maps.Copy(p, change)
	return p
}

func card(uri string) map[string]any {
	return map[string]any{"$type": "app.bsky.embed.external", "external": map[string]any{"uri": uri, "title": "t", "description": "d"}}
}

func TestValidRecords(t *testing.T) {
	t.Parallel()
	const now, did = "2024-01-01T00:00:00.000Z", "did:web:registry.example.com"
	for _, c := range []struct {
		collection, key string
		record          any
	}{
		{NSIDLayer, "3kznmn7xqxl22", Layer{Digest: "sha256:ab", MediaType: "application/vnd.oci.image.layer.v1.tar", Manifest: ManifestURI(did, "sha256:abcd"), UserDID: did, CreatedAt: now}},
		{NSIDLayer, "3kznmn7xqxl22", Layer{Digest: strings.Repeat("d", 128), Size: -1, MediaType: strings.Repeat("m", 128), Manifest: ManifestURI(did, "sha256:abcd"), UserDID: did, CreatedAt: now}},
		{NSIDStats, StatsKey(did, "oss/app"), Stats{OwnerDID: did, Repository: "oss/app", PullCount: 3, LastPull: now, UpdatedAt: now}},
		{NSIDProfile, "self", Profile{DisplayName: "Registry", Bot: true, CreatedAt: now}},
		{NSIDPost, "3kznmn7xqxl22", post(nil)},
	} {
		cbor, err := Encode(c.record)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := Validate(c.collection, cbor); status != StatusValid || err != nil {
			t.Errorf("%s: %s, %v", c.collection, status, err)
		}
		if err := ValidateKey(c.collection, c.key); err != nil {
			t.Error(err)
		}
	}
}

func TestInvalidRecords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		collection string
		record     any
		want       string
	}{
		{NSIDPost, post(map[string]any{"text": strings.Repeat("é", 301)}), "grapheme too big (maximum 300, got 301) at $.text"},
		{NSIDPost, post(map[string]any{"text": strings.Repeat("👨‍👩‍👧‍👧", 121)}), "string too big (maximum 3000, got 3025) at $.text"},
		{NSIDPost, post(map[string]any{"createdAt": "yesterday"}), "at $.createdAt"},
		{NSIDPost, post(map[string]any{"embed": card("invalid")}), "at $.embed.external.uri"},
		{NSIDPost, post(map[string]any{"langs": []string{"en", "de", "fr", "it"}}), "array too big (maximum 3, got 4) at $.langs"},
		{NSIDPost, map[string]any{"$type": NSIDPost, "text": "x"}, `missing required key "createdAt" at $`},
		{NSIDLayer, Layer{Digest: "sha256:ab", MediaType: "a/b", Manifest: "invalid", UserDID: "did:web:a.example", CreatedAt: "2024-01-01T00:00:00Z"}, "at $.manifest"},
		{NSIDStats, Stats{OwnerDID: "did:web:a.example", Repository: "a", PullCount: -1, UpdatedAt: "2024-01-01T00:00:00Z"}, "at $.pullCount"},
		{NSIDStats, Stats{OwnerDID: "did:web:a.example", Repository: strings.Repeat("a", 257), UpdatedAt: "2024-01-01T00:00:00Z"}, "string too big (maximum 256, got 257) at $.repository"},
		{NSIDStats, Stats{OwnerDID: "did:web:a.example", Repository: "a", LastPush: "today", UpdatedAt: "2024-01-01T00:00:00Z"}, "at $.lastPush"},
		{NSIDLayer, map[string]any{"$type": NSIDPost}, "its $type is not io.atcr.hold.layer"},
	} {
		cbor, err := Encode(c.record)
		if err != nil {
			t.Fatal(err)
		}
		status, err := Validate(c.collection, cbor)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %q, %v, want an error with %q", status, err, c.want)
		}
	}
	if status, err := Validate("com.example.other", []byte{0xa0}); status != StatusUnknown || err != nil {
		t.Errorf("unknown collection: %s, %v", status, err)
	}
	for collection, key := range map[string]string{NSIDPost: "my-post", NSIDProfile: "other", NSIDLayer: "x"} {
		if ValidateKey(collection, key) == nil {
			t.Errorf("%s: accepted the key %s", collection, key)
		}
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	const write = `{"$type":"com.atproto.repo.applyWrites#%","collection":"a.b.c","rkey":"k","value":{}}`
	apply := func(writes string) string { return `{"repo":"did:web:a.example","writes":[` + writes + `]}` }
	for _, c := range []struct{ nsid, body, want string }{
		{NSIDApplyWrites, apply(``), ""},
		{NSIDApplyWrites, apply(strings.Replace(write, "%", "create", 1)), ""},
		{NSIDApplyWrites, apply(strings.Replace(write, "%", "delete", 1)), ""},
		{NSIDApplyWrites, apply(strings.Replace(write, "%", "other", 1)), `unexpected $type "com.atproto.repo.applyWrites#other" at $.writes[0]`},
		{NSIDApplyWrites, apply(`{}`), `expected an object with a "$type" at $.writes[0]`},
		{NSIDApplyWrites, apply(`{"$type":"com.atproto.repo.applyWrites#create","collection":"invalid","value":{}}`), "at $.writes[0].collection"},
		{NSIDApplyWrites, `{"writes":[]}`, `missing required key "repo" at $`},
		{NSIDApplyWrites, `{"repo":"did:web:a.example","writes":[],"swapCommit":"zzz"}`, "at $.swapCommit"},
		{NSIDApplyWrites, `{"repo":"did:web:a.example","writes":[],"validate":null}`, "at $.validate"},
		{NSIDNotifyManifest, `{"repository":"a","userDid":"did:web:a.example","manifestDigest":"sha256:a","manifest":{"mediaType":"m"}}`, ""},
		{NSIDNotifyManifest, `{"repository":"a","userDid":"did:web:a.example","manifestDigest":"sha256:a","manifest":{"mediaType":"m","layers":[{"digest":"d","size":1}],"manifests":[{"digest":"d","size":1,"platform":{"os":"linux","new":1}}],"other":[]}}`, ""},
		{NSIDNotifyManifest, `{"repository":"a","userDid":"did:web:a.example","manifestDigest":"sha256:a","manifest":{}}`, ""},
		{NSIDNotifyManifest, `{"repository":"a","userDid":"did:web:a.example","manifestDigest":"sha256:a"}`, `"manifest" at $`},
		{NSIDNotifyManifest, `{"repository":"a","userDid":"invalid","manifestDigest":"sha256:a","manifest":{"mediaType":"m"}}`, "at $.userDid"},
		{"com.example.nothing", `{}`, "no schema"},
	} {
		_, err := Input(c.nsid, []byte(c.body))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.body, err, c.want)
		}
	}
	if _, err := Input(NSIDApplyWrites, []byte("{")); !errors.Is(err, ErrSyntax) {
		t.Errorf("got %v, want ErrSyntax", err)
	}
}

// All members are read, except annotations.
func TestReadNotifyManifest(t *testing.T) {
	t.Parallel()
	d := Descriptor{
		MediaType: "a/b", Digest: "sha256:ab", Size: 1, URLs: []string{"https://a.example"}, ArtifactType: "c/d",
		Platform: &Platform{OS: "linux", Architecture: "arm64", Variant: "v8", OSVersion: "1"},
	}
	want := NotifyManifestInput{
		Repository: "oss/app", Tag: "v1", UserDID: "did:web:a.example", ManifestDigest: "sha256:cd", Operation: OperationPush, Visibility: VisibilityPrivate,
		Manifest: ManifestInfo{MediaType: "a/b", ArtifactType: "c/d", Config: &d, Layers: []Descriptor{d, {}}, Manifests: []Descriptor{d}, Subject: &d},
	}
	sent := want
	sent.Manifest.Annotations = map[string]string{"a": "b"}
	raw, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	input, err := Input(NSIDNotifyManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := ReadNotifyManifest(input); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	const list = "com.atproto.repo.listRecords"
	got, err := Params(list, url.Values{"repo": {"did:web:a.example"}, "collection": {"a.b.c"}, "reverse": {"true"}, "other": {"x"}})
	want := map[string]any{"repo": "did:web:a.example", "collection": "a.b.c", "reverse": true, "limit": int64(50)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for query, want := range map[string]string{
		"collection=a.b.c":                                      `missing required key "repo"`,
		"repo=did:web:a.example&collection=invalid":             "at $.collection",
		"repo=did:web:a.example&collection=a.b.c&limit=x":       "expected an integer",
		"repo=did:web:a.example&collection=a.b.c&limit=101":     "at $.limit",
		"repo=did:web:a.example&collection=a.b.c&reverse=1":     "expected true or false",
		"repo=did:web:a.example&repo=did:web:b.example&limit=1": "given more than once at $.repo",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Params(list, q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", query, err, want)
		}
	}
}
