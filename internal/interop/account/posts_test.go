package account

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// site is the address under which the network reaches the registry, if it could.
const site = "https://registry.example.com"

// A recorder is a proxy in front of a PDS that keeps what is written to it.
type recorder struct {
	*httptest.Server

	mu     sync.Mutex
	writes []written
	blobs  [][]byte
}

// A written record is a write with its result.
type written struct {
	Type       string `json:"$type"`
	Collection string
	RKey       string
	Value      json.RawMessage
	Result     struct{ URI, CID, ValidationStatus string }
}

func newRecorder(t *testing.T, target string) *recorder {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = to.Host
		p.Out.Header.Del("Accept-Encoding")
	}}
	proxy.ModifyResponse = func(res *http.Response) error {
		sent, _ := res.Request.Context().Value(sentKey{}).([]byte)
		body, err := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(body))
		if err == nil && res.StatusCode == http.StatusOK {
			err = r.note(path.Base(res.Request.URL.Path), sent, body)
		}
		return err
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		sent, err := io.ReadAll(q.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		q.Body = io.NopCloser(bytes.NewReader(sent))
		proxy.ServeHTTP(w, q.WithContext(withSent(q.Context(), sent)))
	}))
	t.Cleanup(r.Close)
	return r
}

// directory is the PLC directory of a PDS, in which the PDS has another address. It returns the
// URL.
func directory(t *testing.T, s *pds.Server, address string) string {
	t.Helper()
	d := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(bytes.ReplaceAll(getBytes(t, s.PLC+q.URL.Path), []byte(s.URL), []byte(address)))
	}))
	t.Cleanup(d.Close)
	return d.URL
}

func (r *recorder) note(method string, sent, answer []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch method {
	case "com.atproto.repo.uploadBlob":
		r.blobs = append(r.blobs, sent)
	case "com.atproto.repo.applyWrites":
		var in struct{ Writes []written }
		var out struct {
			Results []struct{ URI, CID, ValidationStatus string }
		}
		if err := json.Unmarshal(sent, &in); err != nil {
			return err
		}
		if err := json.Unmarshal(answer, &out); err != nil {
			return err
		}
		for i, w := range in.Writes {
			if i < len(out.Results) {
				w.Result = out.Results[i]
			}
			r.writes = append(r.writes, w)
		}
	}
	return nil
}

// of returns the writes of a collection.
func (r *recorder) of(collection string) (all []written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.writes {
		if w.Collection == collection {
			all = append(all, w)
		}
	}
	return all
}

// The reference PDS takes posts with all that they can have as valid, and returns them, the
// records that they refer to, and their pictures as they were sent. The official client finds
// the facets in the texts.
func TestPosts(t *testing.T) {
	reference, program := startReference(t)
	bob := createAccount(t, reference, "bob.test")
	proxy := newRecorder(t, reference.URL)
	proxied := *reference
	proxied.URL, proxied.PLC = proxy.URL, directory(t, reference, proxy.URL)
	registry, err := pds.NewRegistry(t.Context(), program, filepath.Join(t.TempDir(), "registry"), &proxied, `        owner: `+bob+`
        announce:
          {collect: 0s, cooldown: 0s, daily_limit: 0, hashtags: [containers, größe], mention_owner: true, publication: {name: Images}, langs: [en, de],
           template: "🐳 {{link .Name .Link}} ({{.Tag}}) {{link .Link .Link}} {{mention .Handle .Owner}} {{range .Hashtags}}{{hashtag .}} {{end}}"}
        stats: {records: off}
`)
	if err != nil {
		t.Fatal(err)
	}
	setHost(t, filepath.Join(registry.Dir, "config.yml"))
	startRegistry(t, registry)
	for i := range 2 {
		ref, err := name.NewTag(fmt.Sprintf("%s/oss/app:v1.%d.0", strings.TrimPrefix(site, "https://"), i))
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Push(ref, newImage(t, 2), remote.WithContext(t.Context()), remote.WithTransport(redirect(registry.Host))); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(time.Minute)
	for len(proxy.of(lexicon.NSIDDocument)) < 4 { // each is updated after its post is written
		if time.Now().After(deadline) {
			t.Fatalf("%d posts and %d writes of documents after a minute", len(proxy.of(lexicon.NSIDPost)), len(proxy.of(lexicon.NSIDDocument)))
		}
		time.Sleep(50 * time.Millisecond)
	}

	for collection, want := range map[string]int{lexicon.NSIDPost: 2, lexicon.NSIDDocument: 4, lexicon.NSIDPublication: 1} {
		writes := proxy.of(collection)
		if len(writes) != want {
			t.Errorf("%s: %d writes, want %d", collection, len(writes), want)
		}
		last := map[string]written{}
		for _, w := range writes {
			if w.Result.ValidationStatus != "valid" { // the reference has the schemas of all three
				t.Errorf("%s/%s is %q, want valid", collection, w.RKey, w.Result.ValidationStatus)
			}
			last[w.RKey] = w
		}
		for _, w := range last {
			checkRecord(t, reference, w)
		}
	}
	for _, w := range proxy.of(lexicon.NSIDPost) {
		checkPost(t, proxy, w)
	}
	if len(proxy.blobs) != 3 {
		t.Errorf("%d blobs were uploaded, want 2 pictures and the icon", len(proxy.blobs))
	}
	for _, content := range proxy.blobs {
		query := url.Values{"did": {reference.DID}, "cid": {blobCID(content)}}
		if got := getBytes(t, reference.URL+"/xrpc/com.atproto.sync.getBlob?"+query.Encode()); !bytes.Equal(got, content) {
			t.Errorf("the blob %s is returned with %d bytes, and %d were uploaded", blobCID(content), len(got), len(content))
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "facets.mjs", reference.URL, reference.DID)
	cmd.Dir, cmd.Stderr = filepath.Join(root, "testdata/interop"), os.Stderr
	out, err := cmd.Output()
	if want := `{"posts":2,"link":2,"tag":4,"mention":2}`; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("the client finds %s, %v, want %s", out, err, want)
	}
}

// checkRecord checks that the PDS returns a record as it was sent: in JSON, and as the block
// with its CID.
func checkRecord(t *testing.T, s *pds.Server, w written) {
	t.Helper()
	encoded, err := lexicon.FromJSON(w.Value)
	if err != nil {
		t.Fatal(err)
	}
	id := block.CIDOf(encoded)
	query := url.Values{"repo": {s.DID}, "did": {s.DID}, "collection": {w.Collection}, "rkey": {w.RKey}}
	var got struct {
		URI, CID string
		Value    json.RawMessage
	}
	get(t, s.URL+"/xrpc/com.atproto.repo.getRecord?"+query.Encode(), &got)
	back, err := lexicon.FromJSON(got.Value)
	if err != nil || got.URI != w.Result.URI || got.CID != id.String() || w.Result.CID != got.CID || !bytes.Equal(back, encoded) {
		t.Errorf("%s was written as %+v and is returned as %+v, %v; want the CID %s", w.RKey, w, got, err, id)
	}
	found := false
	_, err = car.ReadBlocks(bytes.NewReader(getBytes(t, s.URL+"/xrpc/com.atproto.sync.getRecord?"+query.Encode())), 1<<20, func(c cid.Cid, data []byte) error {
		found = found || c == id && bytes.Equal(data, encoded)
		return nil
	})
	if err != nil || !found {
		t.Errorf("the blocks of %s have no block of its bytes, %v", w.RKey, err)
	}
}

// checkPost checks that a post has a card with a picture, facets of each kind, languages, and
// references to the first version of its document and the publication as the PDS has them, and
// that the second version of the document refers to the post.
func checkPost(t *testing.T, proxy *recorder, w written) {
	t.Helper()
	var post struct {
		Langs  []string
		Facets []struct {
			Features []struct {
				Type string `json:"$type"`
			}
		}
		Embed struct {
			External struct {
				URI            string
				Thumb          struct{ MimeType string }
				AssociatedRefs []struct{ URI, CID string }
			}
		}
	}
	if err := json.Unmarshal(w.Value, &post); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, f := range post.Facets {
		_, kind, _ := strings.Cut(f.Features[0].Type, "#")
		kinds[kind]++
	}
	if kinds["link"] != 2 || kinds["tag"] != 2 || kinds["mention"] != 1 || strings.Join(post.Langs, " ") != "en de" {
		t.Errorf("a post has the facets %v and the languages %v", kinds, post.Langs)
	}
	card := post.Embed.External
	if !strings.HasPrefix(card.URI, site+"/tidings/r/oss/app/v1.") || card.Thumb.MimeType != "image/png" {
		t.Errorf("the card is %+v", card)
	}
	cids := map[string]string{}
	for _, collection := range []string{lexicon.NSIDDocument, lexicon.NSIDPublication} {
		for _, record := range proxy.of(collection) {
			if strings.HasSuffix(record.Type, "#create") {
				cids[record.Result.URI] = record.Result.CID
				continue
			}
			var document struct{ BskyPostRef struct{ URI, CID string } }
			if err := json.Unmarshal(record.Value, &document); err != nil {
				t.Fatal(err)
			}
			if got := document.BskyPostRef; record.RKey == w.RKey && (got.URI != w.Result.URI || got.CID != w.Result.CID) {
				t.Errorf("the document refers to the post %v, want %v", got, w.Result)
			}
		}
	}
	for _, ref := range card.AssociatedRefs {
		if cids[ref.URI] != ref.CID {
			t.Errorf("the post refers to %v, which is not what was written", ref)
		}
	}
	if len(card.AssociatedRefs) != 2 {
		t.Errorf("the post refers to %v, want a document and the publication", card.AssociatedRefs)
	}
}

// setHost gives the registry of a configuration the address of the site.
func setHost(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), "http: {", "http: {host: \""+site+"\", ", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// redirect sends requests for the site to a host.
type redirect string

func (host redirect) RoundTrip(q *http.Request) (*http.Response, error) {
	q = q.Clone(q.Context())
	q.URL.Scheme, q.URL.Host = "http", string(host)
	return http.DefaultTransport.RoundTrip(q)
}

// createAccount creates another account on the PDS and returns its DID.
func createAccount(t *testing.T, s *pds.Server, handle string) string {
	t.Helper()
	input, err := json.Marshal(map[string]string{"handle": handle, "email": handle + "@example.com", "password": "interop-" + handle})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(s.URL+"/xrpc/com.atproto.server.createAccount", "application/json", bytes.NewReader(input))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var created struct{ DID string }
	if err := json.NewDecoder(res.Body).Decode(&created); err != nil || created.DID == "" {
		t.Fatalf("createAccount: %s, %v", res.Status, err)
	}
	return created.DID
}

// sentKey is the key of a request's body in its context.
type sentKey struct{}

func withSent(ctx context.Context, body []byte) context.Context {
	return context.WithValue(ctx, sentKey{}, body)
}

func blobCID(content []byte) string {
	return block.Digest(sha256.Sum256(content)).BlobCID().String()
}
