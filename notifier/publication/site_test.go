package publication

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/state"
)

const did = "did:web:registry.example.com"

var errFault = errors.New("the connection broke")

// A rig is an account and a state, with faults.
type rig struct {
	t     *testing.T
	repo  *repo.Repo
	state state.Store

	lost, lostAnswer int // the next calls of Apply that fail, without and with effect
	applied          int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	cfg := repo.Config{Dir: filepath.Join(t.TempDir(), "repo"), DID: did, Key: key, Reserve: 1}
	account, err := repo.Init(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = account.Close() })
	r := &rig{t: t, repo: account}
	r.newState()
	return r
}

// newState replaces the state by an empty one.
func (r *rig) newState() {
	r.t.Helper()
	db, err := state.Open(state.Config{Dir: r.t.TempDir()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = db.Close() })
	r.state = state.OnPebble(db)
}

// faulty is the account of a rig with its faults.
type faulty struct {
	*repo.Repo
	*rig
}

func (f faulty) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	if f.lost > 0 {
		f.lost--
		return repo.Result{}, errFault
	}
	f.applied++
	result, err := f.Repo.Apply(ctx, writes, swap)
	if f.lostAnswer > 0 && err == nil {
		f.lostAnswer--
		return repo.Result{}, errFault
	}
	return result, err
}

func (r *rig) site(d Description) *Site {
	r.t.Helper()
	s, err := New(Config{Description: d, Account: did, State: r.state})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) publish(s *Site) error {
	return s.Publish(context.Background(), delivery.NewRepo(delivery.OnEmbedded(faulty{r.repo, r})))
}

// records returns the publications of the account by their keys.
func (r *rig) records() map[string]map[string]any {
	r.t.Helper()
	list, _, err := r.repo.List(lexicon.NSIDPublication, "", 100, true)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]map[string]any{}
	for _, record := range list {
		if _, err := lexicon.Validate(lexicon.NSIDPublication, record.Value); err != nil {
			r.t.Error(err)
		}
		if all[record.RKey], err = lexicon.Unmarshal(record.Value); err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

// only returns the one publication of the account.
func (r *rig) only() (uri string, record map[string]any) {
	r.t.Helper()
	all := r.records()
	if len(all) != 1 {
		r.t.Fatalf("got %d publications, want 1: %v", len(all), all)
	}
	for key, record := range all {
		if err := lexicon.ValidateKey(lexicon.NSIDPublication, key); err != nil {
			r.t.Error(err)
		}
		return "at://" + did + "/" + lexicon.NSIDPublication + "/" + key, record
	}
	return "", nil
}

var described = Description{URL: "https://registry.example.com/tidings", Name: "registry.example.com"}

func TestPublish(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.site(described)
	if _, ok := s.Ref(); ok || s.URI() != "" {
		t.Errorf("before it is written: got %q, %v", s.URI(), ok)
	}
	if err := r.publish(s); err != nil {
		t.Fatal(err)
	}
	uri, record := r.only()
	if s.URI() != uri || record["url"] != described.URL || record["name"] != described.Name || record["description"] != nil || record["icon"] != nil {
		t.Errorf("got %s, %v", s.URI(), record)
	}

	s = r.site(described)
	if s.URI() != uri {
		t.Errorf("after a restart: got %q, want %q", s.URI(), uri)
	}
	if err := r.publish(s); err != nil || r.applied != 1 {
		t.Errorf("after a restart: %d writes, %v, want none", r.applied-1, err)
	}

	r.newState()
	if err := r.publish(r.site(described)); err != nil || r.applied != 1 {
		t.Errorf("after the state was lost: %d writes, %v, want none", r.applied-1, err)
	}
}

// Each fault of the write, at the first and at a later version of the record.
func TestPublishFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(r *rig){
		"failed and not applied": func(r *rig) { r.lost = 1 },
		"failed yet applied":     func(r *rig) { r.lostAnswer = 1 },
	} {
		r := newRig(t)
		changed := described
		changed.Name, changed.Text = "Images", "All of them"
		for i, d := range []Description{described, changed} {
			fault(r)
			if err := r.publish(r.site(d)); !errors.Is(err, errFault) {
				t.Errorf("%s: got %v, want the fault", name, err)
			}
			s := r.site(d) // the process was killed
			if err := r.publish(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			uri, record := r.only()
			if ref, ok := s.Ref(); !ok || ref.URI != uri || record["name"] != d.Name || r.applied != i+1 {
				t.Errorf("%s: got %v, %v, %d writes", name, ref, record, r.applied)
			}
		}
	}
}

// A change updates the record and keeps what other programs have added.
func TestPublishChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	theirs, err := lexicon.Encode(map[string]any{
		"$type": lexicon.NSIDPublication, "url": described.URL + "/", "name": "theirs", "description": "old", "preferences": map[string]any{"showInDiscover": false},
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := lexicon.Encode(map[string]any{"$type": lexicon.NSIDPublication, "url": "https://blog.example.com", "name": "a blog"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.repo.Apply(context.Background(), []repo.Write{
		{Action: repo.Create, Collection: lexicon.NSIDPublication, RKey: "3l2aaaaaaaa22", Record: other},
		{Action: repo.Create, Collection: lexicon.NSIDPublication, RKey: "3l2bbbbbbbb22", Record: theirs},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	icon, err := ReadIcon(picture(t, 256, 256, "png"))
	if err != nil {
		t.Fatal(err)
	}
	d := described
	d.Icon = icon
	if err := r.publish(r.site(d)); err != nil {
		t.Fatal(err)
	}
	all := r.records()
	got := all["3l2bbbbbbbb22"]
	preferences, _ := got["preferences"].(map[string]any)
	if len(all) != 2 || got["name"] != d.Name || got["url"] != d.URL || got["description"] != nil || preferences["showInDiscover"] != false {
		t.Errorf("got %v", all)
	}
	if blobs := lexicon.Blobs(got); len(blobs) != 1 || blobs[0].MimeType != "image/png" || blobs[0].Size != int64(len(icon.content)) {
		t.Errorf("got the icon %v", blobs)
	}
	if all["3l2aaaaaaaa22"]["name"] != "a blog" {
		t.Errorf("the other publication was changed: %v", all)
	}
	if err := r.publish(r.site(described)); err != nil || r.records()["3l2bbbbbbbb22"]["icon"] != nil {
		t.Errorf("without an icon: %v, %v", r.records(), err)
	}
}

func TestPublishOfAnotherAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.publish(r.site(described)); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Description: described, Account: "did:web:other.example.com", State: r.state})
	if err != nil || s.URI() != "" {
		t.Errorf("got %q, %v, want no record in another account", s.URI(), err)
	}
}

func TestWellKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.site(described)
	get := func(method string) (status int, body string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, "/.well-known/site.standard.publication", nil))
		if status = w.Code; status == 200 && !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("got the type %s", w.Header().Get("Content-Type"))
		}
		return status, w.Body.String()
	}
	if status, _ := get("GET"); status != 404 {
		t.Errorf("before it is written: got %d, want 404", status)
	}
	if err := r.publish(s); err != nil {
		t.Fatal(err)
	}
	if status, body := get("GET"); status != 200 || body != s.URI() {
		t.Errorf("got %d, %q, want %q", status, body, s.URI())
	}
	if status, _ := get("POST"); status != 405 {
		t.Errorf("POST: got %d, want 405", status)
	}
	if got := strings.Join(s.Paths(), " "); got != "/.well-known/site.standard.publication /.well-known/site.standard.publication/tidings" {
		t.Errorf("got the paths %s", got)
	}
}

// picture writes a picture to a file.
func picture(t *testing.T, width, height int, format string) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	var b bytes.Buffer
	encode := func() error { return png.Encode(&b, m) }
	if format == "jpeg" {
		encode = func() error { return jpeg.Encode(&b, m, nil) }
	}
	if err := encode(); err != nil {
		t.Fatal(err)
	}
	return write(t, b.Bytes())
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "icon")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadIcon(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ path, err string }{
		"PNG":        {picture(t, 256, 256, "png"), ""},
		"JPEG":       {picture(t, 400, 400, "jpeg"), ""},
		"small":      {picture(t, 255, 255, "png"), "has 255 × 255 pixels; an icon must be square and have at least 256 × 256"},
		"not square": {picture(t, 300, 256, "png"), "has 300 × 256 pixels"},
		"a text":     {write(t, []byte("hello")), "is neither PNG nor JPEG"},
		"too large":  {write(t, make([]byte, maxIcon+1)), "has more than 1000000 bytes"},
		"missing":    {filepath.Join(t.TempDir(), "missing"), "no such file"},
	} {
		icon, err := ReadIcon(tc.path)
		if tc.err == "" && (err != nil || icon == nil) || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.err)
		}
	}
}

func TestLongDocument(t *testing.T) {
	t.Parallel()
	d := Document{Path: "/r/a/v1", Title: strings.Repeat("é", 600), Description: strings.Repeat("x", 4000), Published: time.Unix(1, 0)}
	encoded, err := d.Record("at://" + did + "/site.standard.publication/3l2aaaaaaaa22")
	if err != nil {
		t.Fatal(err)
	}
	record, err := lexicon.Unmarshal(encoded)
	if err != nil || lexicon.Graphemes(record["title"].(string)) != 500 || lexicon.Graphemes(record["description"].(string)) != 3000 {
		t.Errorf("got %v, %v", record, err)
	}
}
