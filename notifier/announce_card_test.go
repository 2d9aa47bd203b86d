package notifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/post"
)

// An uploadFault is the outcome of one call of Upload.
type uploadFault struct {
	err    error // nil: none is returned
	stored bool  // whether the blob is stored
}

// Upload stores a blob as the next uploadFault says.
func (a *account) Upload(ctx context.Context, body io.Reader, limit int64, mimeType func([]byte) string) (repo.Blob, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uploaded++
	f := uploadFault{stored: true}
	if len(a.uploads) > 0 {
		f, a.uploads = a.uploads[0], a.uploads[1:]
	}
	if !f.stored {
		return repo.Blob{}, f.err
	}
	blob, err := a.Repo.Upload(ctx, body, limit, mimeType)
	return blob, errors.Join(err, f.err)
}

func (a *account) failUploads(faults ...uploadFault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uploads = faults
}

func (a *account) failPosts(faults ...fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.postFaults = faults
}

// uploadCalls returns the number of calls of Upload.
func (a *account) uploadCalls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uploaded
}

// withCards is a configuration with pictures.
func withCards(link string) *announce.Config {
	cfg := shortWindows()
	cfg.Card, cfg.Host = true, "registry.test"
	if link != "" {
		cfg.Link = func(string, string, string) string { return link }
	}
	return cfg
}

// picture returns the blob in the post of a tag, "" if the post has none.
func (r *rig) picture(tag string) (id string, embed map[string]any) {
	r.t.Helper()
	for _, record := range r.posts() {
		image, _ := post.Origin(record)
		if image.Tag != tag {
			continue
		}
		embed, _ = record["embed"].(map[string]any)
		raw, err := json.Marshal(embed)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, after, ok := strings.Cut(string(raw), `"$link":"`); ok {
			id, _, _ = strings.Cut(after, `"`)
		}
		return id, embed
	}
	r.t.Fatalf("no post of %s", tag)
	return "", nil
}

// checkPicture checks that the account has the picture in the post of a tag.
func (r *rig) checkPicture(tag string) map[string]any {
	r.t.Helper()
	id, embed := r.picture(tag)
	c, err := cid.Decode(id)
	if err != nil {
		r.t.Fatalf("the post of %s has the picture %q: %v", tag, id, err)
	}
	blob, err := r.repo.Blob(c)
	if err != nil || blob.MimeType != "image/png" {
		r.t.Fatalf("got %+v, %v", blob, err)
	}
	content, err := r.repo.OpenBlob(blob)
	if err != nil {
		r.t.Fatal(err)
	}
	defer content.Close()
	drawn, err := io.ReadAll(content)
	if err != nil {
		r.t.Fatal(err)
	}
	if m, err := png.DecodeConfig(bytes.NewReader(drawn)); err != nil || m.Width != 1200 || m.Height != 630 {
		r.t.Errorf("got a picture of %d×%d, %v", m.Width, m.Height, err)
	}
	return embed
}

// cardCounts returns tidings_cards_total.
func (r *rig) cardCounts() map[string]int {
	counts := map[string]int{}
	for _, outcome := range []string{"attached", "undrawn", "not_uploaded", "refused", "paused"} {
		if n := testutil.ToFloat64(r.metrics.Cards.WithLabelValues(outcome)); n > 0 {
			counts[outcome] = int(n)
		}
	}
	return counts
}

func TestCard(t *testing.T) {
	t.Parallel()
	r := newRig(t, withCards("https://registry.test/oss/app"))
	r.push(image("a", 3).as("oss/app", "v1"))
	r.drain()
	external := r.checkPicture("v1")["external"].(map[string]any)
	delete(external, "thumb")
	want := map[string]any{"uri": "https://registry.test/oss/app", "title": "oss/app:v1", "description": "3.1 kB, 3 layers"}
	if !maps.Equal(external, want) {
		t.Errorf("got %v, want %v", external, want)
	}

	r.reopen(withCards(""))
	r.push(image("b", 2).as("oss/app", "v2"))
	r.drain()
	images := r.checkPicture("v2")["images"].([]any)
	one := images[0].(map[string]any)
	if alt := one["alt"]; len(images) != 1 || alt != "oss/app:v2 on registry.test: 2.1 kB, 2 layers. A bar shows the sizes of the layers." {
		t.Errorf("got %d images, %q", len(images), alt)
	}

	r.reopen(shortWindows()) // card: false
	r.push(image("c", 2).as("oss/app", "v3"))
	r.drain()
	if _, embed := r.picture("v3"); embed != nil {
		t.Errorf("without pictures: got %v", embed)
	}

	// A post that is deleted frees its picture.
	id, _ := r.picture("v1")
	page, _, err := r.repo.List(lexicon.NSIDPost, "", 10, true)
	if err != nil {
		t.Fatal(err)
	}
	r.apply(repo.Write{Action: repo.Delete, Collection: lexicon.NSIDPost, RKey: page[0].RKey})
	if _, err := r.repo.Blob(cid.MustParse(id)); !errors.Is(err, repo.ErrBlobNotFound) {
		t.Errorf("the picture of a deleted post: got %v, want ErrBlobNotFound", err)
	}
}

func refusedUpload(o pds.Outcome, status int) uploadFault {
	return uploadFault{err: &pds.Error{Method: pds.UploadBlobMethod, Outcome: o, Status: status, Err: errFault}}
}

// Each fault of an upload, once or each time. The post is always written, once.
func TestCardUploadFaults(t *testing.T) {
	race.Skip(t, "its goroutines are those of the tests without faults")
	t.Parallel()
	lost, lostStored := uploadFault{err: errFault}, uploadFault{err: errFault, stored: true}
	down := uploadFault{err: repo.ErrNoSpace}
	for name, tc := range map[string]struct {
		uploads []uploadFault
		applies []fault
		calls   int            // of Upload for the first post
		want    map[string]int // tidings_cards_total after two posts
	}{
		"none":                          {nil, nil, 1, map[string]int{"attached": 2}},
		"not stored, once":              {[]uploadFault{lost}, nil, 2, map[string]int{"attached": 2}},
		"stored, once":                  {[]uploadFault{lostStored}, nil, 2, map[string]int{"attached": 2}},
		"not stored, again":             {[]uploadFault{lost, lost}, nil, 2, map[string]int{"not_uploaded": 1, "paused": 1}},
		"stored, again":                 {[]uploadFault{lostStored, lostStored}, nil, 2, map[string]int{"not_uploaded": 1, "paused": 1}},
		"too large":                     {[]uploadFault{refusedUpload(pds.TooLarge, 413)}, nil, 1, map[string]int{"not_uploaded": 1, "paused": 1}},
		"refused":                       {[]uploadFault{refusedUpload(pds.Refused, 400)}, nil, 1, map[string]int{"not_uploaded": 1, "paused": 1}},
		"limited":                       {[]uploadFault{refusedUpload(pds.Limited, 429)}, nil, 1, map[string]int{"not_uploaded": 1, "paused": 1}},
		"the disk is full":              {[]uploadFault{down, down, down}, nil, 4, map[string]int{"attached": 2}},
		"not found at the write":        {[]uploadFault{{}}, nil, 2, map[string]int{"attached": 2}},
		"not found at the write, again": {[]uploadFault{{}, {}}, nil, 2, map[string]int{"refused": 1, "attached": 1}},
		"the write is lost":             {nil, []fault{lostRequest}, 1, map[string]int{"attached": 2}},
		"the answer is lost":            {nil, []fault{lostAnswer}, 1, map[string]int{"attached": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withCards(""))
			r.account.failUploads(tc.uploads...)
			r.account.failPosts(tc.applies...)
			r.push(image("a", 3).as("oss/app", "v1"))
			r.until("the first post is written", func() bool { return len(r.posts()) == 1 })
			if got := r.account.uploadCalls(); got != tc.calls {
				t.Errorf("got %d uploads, want %d", got, tc.calls)
			}
			r.drain()
			r.push(image("b", 2).as("oss/app", "v2"))
			r.drain()
			if n := len(r.posts()); n != 2 {
				t.Errorf("got %d posts, want 2", n)
			}
			if got := r.cardCounts(); !maps.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			for _, tag := range []string{"v1", "v2"} {
				if id, _ := r.picture(tag); id != "" {
					r.checkPicture(tag)
				}
			}
			if letters := r.letters(); len(letters) != 0 {
				t.Errorf("dead letters: %v", letters)
			}
		})
	}
}

// A post that was sent with its picture, and is written after the picture was dropped, is the
// post.
func TestCardOfLatePost(t *testing.T) {
	t.Parallel()
	r := newRig(t, withCards(""))
	r.account.failPosts(slices.Repeat([]fault{lostRequest}, 10_000)...)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.until("the post is sent", func() bool {
		r.account.mu.Lock()
		defer r.account.mu.Unlock()
		return r.account.lostPosts != nil
	})
	before := r.account
	r.prepare = func(a *account) {
		a.latePosts, a.uploads = before.lostPosts, []uploadFault{refusedUpload(pds.TooLarge, 413)}
	}
	r.reopen(withCards(""))
	r.drain()
	if n := len(r.posts()); n != 1 {
		t.Fatalf("got %d posts, want 1", n)
	}
	r.checkPicture("v1")
	if letters := r.letters(); len(letters) != 0 {
		t.Errorf("dead letters: %v", letters)
	}
	if got, want := r.cardCounts(), map[string]int{"not_uploaded": 1, "attached": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// After a restart a post gets the picture that it refers to, and what an earlier version put
// into the outbox is sent as it is.
func TestCardAfterRestart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before *announce.Config
		want   map[string]int
	}{
		"the same version":   {withCards(""), map[string]int{"attached": 1}},
		"an earlier version": {shortWindows(), map[string]int{}},
	} {
		r := newRig(t, tc.before)
		r.account.failPosts(slices.Repeat([]fault{lostRequest}, 10_000)...)
		r.push(image("a", 3).as("oss/app", "v1"))
		r.until("the post is sent", func() bool {
			r.account.mu.Lock()
			defer r.account.mu.Unlock()
			return r.account.lostPosts != nil
		})
		before := r.account
		r.reopen(withCards(""))
		r.drain()
		page, _, err := r.repo.List(lexicon.NSIDPost, "", 10, true)
		if err != nil || len(page) != 1 || !bytes.Equal(page[0].Value, before.lostPosts[0].Record) {
			t.Errorf("%s: got %d posts, %v, want the one that was sent before", name, len(page), err)
		}
		if got := r.cardCounts(); !maps.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
		if _, embed := r.picture("v1"); embed != nil {
			r.checkPicture("v1")
		}
		if got, want := r.account.uploadCalls(), tc.want["attached"]; got != want {
			t.Errorf("%s: got %d uploads, want %d", name, got, want)
		}
	}
}

// A state that was restored from a backup may have a post in its outbox that was changed
// before it was written. Only a post of the same image is taken for it.
func TestPostOfRestoredState(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change  func(record map[string]any)
		letters int
	}{
		"the same image": {func(record map[string]any) { record["langs"] = []any{"de"} }, 0},
		"another image": {func(record map[string]any) {
			post.SetOrigin(record, post.Image{Repository: "oss/app", Tag: "v1", Digest: "sha256:00"})
		}, 1},
		"no announcement": {func(record map[string]any) {
			clear(record)
			record["$type"], record["text"], record["createdAt"] = lexicon.NSIDPost, "hello", "2026-11-27T12:00:00.000Z"
		}, 1},
	} {
		r := newRig(t, shortWindows())
		r.account.failPosts(slices.Repeat([]fault{lostRequest}, 10_000)...)
		r.push(image("a", 3).as("oss/app", "v1"))
		r.until("the post is sent", func() bool {
			r.account.mu.Lock()
			defer r.account.mu.Unlock()
			return r.account.lostPosts != nil
		})
		r.account.mu.Lock()
		write := r.account.lostPosts[0]
		r.account.mu.Unlock()
		record, err := lexicon.Unmarshal(write.Record)
		if err != nil {
			t.Fatal(err)
		}
		tc.change(record)
		if write.Record, err = post.Encode(record); err != nil {
			t.Fatal(err)
		}
		if _, err := r.repo.Apply(t.Context(), []repo.Write{write}, nil); err != nil {
			t.Fatal(err)
		}
		r.reopen(shortWindows())
		r.drain()
		page, _, err := r.repo.List(lexicon.NSIDPost, "", 10, true)
		if err != nil || len(page) != 1 || !bytes.Equal(page[0].Value, write.Record) {
			t.Errorf("%s: got %d posts, %v, want the one of the account", name, len(page), err)
		}
		if n := len(r.letters()); n != tc.letters {
			t.Errorf("%s: %d dead letters, want %d", name, n, tc.letters)
		}
	}
}

// While the account can't be reached, a post waits with its picture.
func TestCardDuringOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t, withCards(""))
	r.account.unread.Store(true)
	r.account.failUploads(slices.Repeat([]uploadFault{{err: errFault}}, 100_000)...)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.until("the upload was tried", func() bool { return r.account.uploadCalls() >= 2 })
	tried := r.account.tried.Load()
	r.until("the post was tried again", func() bool { return r.account.tried.Load() >= tried+5 })
	if n := len(r.posts()); n != 0 {
		t.Errorf("got %d posts during the outage, want 0", n)
	}
	r.account.failUploads()
	r.account.unread.Store(false)
	r.drain()
	r.checkPicture("v1")
	if got, want := r.cardCounts(), map[string]int{"attached": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
