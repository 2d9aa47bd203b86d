package notifier

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// listed returns all posts as the admin API lists them, in pages of two.
func (r *rig) listed(match func(string) bool) (all []announce.Announcement) {
	r.t.Helper()
	for cursor := ""; ; {
		page, next, err := r.Announcements().List(r.t.Context(), match, cursor, 2)
		if err != nil {
			r.t.Fatal(err)
		}
		if all = append(all, page...); next == "" {
			return all
		}
		cursor = next
	}
}

// summaryOf describes posts in a list, the newest first.
func summaryOf(all []announce.Announcement) string {
	var lines []string
	for _, a := range all {
		line := fmt.Sprint(a.Repository, ":", strings.Join(a.Tags, ","), " ", a.About, " ", a.Deleted)
		if a.Deleting {
			line += " deleting"
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "; ")
}

// withdraw withdraws a post and expects no error.
func (r *rig) withdraw(uri string) announce.Withdrawal {
	r.t.Helper()
	result, err := r.Announcements().Withdraw(r.t.Context(), uri)
	if err != nil || result.URI != uri {
		r.t.Fatalf("withdraw %s: %+v, %v", uri, result, err)
	}
	return result
}

// pushed pushes an image, and announces it if its time has come after a minute.
func (r *rig) pushed(m *clocktest.Machine, p Push) {
	r.t.Helper()
	r.push(p)
	m.Pass(time.Minute)
	r.mustStep()
}

// A withdrawn post is deleted with its document, pages and results do not name it, and its
// image is announced again only as a new version.
func TestWithdraw(t *testing.T) {
	t.Parallel()
	cfg := withDocuments()
	cfg.Collect, cfg.Tag = 20*time.Second, func(tag string) bool { return strings.HasPrefix(tag, "v") }
	r, m := newManualRig(t, cfg)
	a := image("a", 1)
	r.pushed(m, a.as("oss/app", "v1.0.0-rc.1"))
	r.pushed(m, image("b", 1).as("oss/app", "v0.9.0"))
	all := r.listed(nil)
	if want := "oss/app:v0.9.0 one version; oss/app:v1.0.0-rc.1 one version"; summaryOf(all) != want {
		t.Fatalf("got %q, want %q", summaryOf(all), want)
	}
	uri := all[1].URI
	if result := r.withdraw(uri); result.Missing || result.Pending != "" {
		t.Errorf("got %+v, want that the record is deleted", result)
	}
	check := func(posts ...string) {
		t.Helper()
		if got := r.texts(); len(got) != len(posts) || !slices.EqualFunc(got, posts, func(text, name string) bool { return strings.HasPrefix(text, name+" was pushed") }) {
			t.Errorf("posts %q, want of %q", got, posts)
		}
		if n := len(r.stored(lexicon.NSIDDocument)); n != len(posts) {
			t.Errorf("%d documents, want %d", n, len(posts))
		}
	}
	check("oss/app:v0.9.0")
	v, ok, err := versions.New(r.state).Get("oss/app", "v1.0.0-rc.1")
	if err != nil || !ok || v.Post != "" || v.Document != "" {
		t.Errorf("the version is %+v, %v, %v; want it without post and document", v, ok, err)
	}
	if got, want := r.announced(1), (pushrow.Announce{Reason: "its announcement was withdrawn"}); got != want {
		t.Errorf("the push has the result %+v, want %+v", got, want)
	}
	if got := r.announced(2); got.PostURI != all[0].URI {
		t.Errorf("the push of the other image has the result %+v", got)
	}
	if want := "oss/app:v0.9.0 one version; oss/app:v1.0.0-rc.1 one version withdrawn"; summaryOf(r.listed(nil)) != want {
		t.Errorf("got %q, want %q", summaryOf(r.listed(nil)), want)
	}
	r.pushed(m, a.as("oss/app", "v1.0.0-rc.1"))
	check("oss/app:v0.9.0")
	if got := r.announced(3); got.PostURI != "" || got.Reason != "its announcement was withdrawn" {
		t.Errorf("the image that was pushed again has the result %+v", got)
	}
	r.pushed(m, a.as("oss/app", "v1.0.0")) // the release of the pre-release
	check("oss/app:v0.9.0", "oss/app:v1.0.0")
	r.pushed(m, image("c", 1).as("oss/app", "v1.0.0-rc.1"))
	check("oss/app:v0.9.0", "oss/app:v1.0.0", "oss/app:v1.0.0-rc.1")
}

// What is not a post of this registry is refused, and nothing changes.
func TestWithdrawRefused(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	r.apply(postBy(t, "2222222222222"))
	uri := r.listed(nil)[0].URI
	gone := "at://" + owner + "/" + lexicon.NSIDPost + "/"
	for bad, want := range map[string]error{
		"":                                       announce.ErrPostURI,
		owner:                                    announce.ErrPostURI,
		"at://" + owner + "/" + lexicon.NSIDPost: announce.ErrPostURI,
		strings.Replace(uri, owner, "did:web:other.example.com", 1):  announce.ErrPostURI,
		strings.Replace(uri, lexicon.NSIDPost, lexicon.NSIDLayer, 1): announce.ErrPostURI,
		gone + "3zzzzzzzzzzzz": announce.ErrUnknownPost,
		gone + "2222222222222": announce.ErrUnknownPost, // of the account's owner
		"at://" + owner + "/" + lexicon.NSIDPost + "/" + strings.Repeat("3zzzzzzzzzzzz", 9): announce.ErrUnknownPost,
	} {
		if _, err := r.Announcements().Withdraw(t.Context(), bad); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", bad, err, want)
		}
	}
	if got := len(r.texts()); got != 2 {
		t.Errorf("%d posts, want 2", got)
	}
	r.withdraw(uri)
	if _, err := r.Announcements().Withdraw(t.Context(), uri); !errors.Is(err, announce.ErrPostDeleted) || !strings.Contains(err.Error(), "withdrawn, ") {
		t.Errorf("withdrawn twice: %v", err)
	}
	if _, _, err := r.Announcements().List(t.Context(), nil, "x", 1); !errors.Is(err, announce.ErrListCursor) {
		t.Errorf("another cursor: %v", err)
	}
}

// A post about several versions is withdrawn for all of them, and so is a summary.
func TestWithdrawMany(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	for i := range 3 {
		r.pushed(m, image(fmt.Sprint(i), 1).as("oss/app", fmt.Sprint("v", i)))
	}
	m.Pass(10 * time.Minute)
	r.mustStep()
	for i := range 3 {
		r.push(image(fmt.Sprint("old", i), 1).as(fmt.Sprint("oss/old", i), "v1"))
	}
	m.Pass(2 * time.Hour)
	r.mustStep()
	all := r.listed(nil)
	want := ": summary of 3 versions; oss/app:v2 one version, and 1 version before it; oss/app:v0 one version"
	if summaryOf(all) != want {
		t.Fatalf("got %q, want %q", summaryOf(all), want)
	}
	for repository, want := range map[string]int{"oss/app": 2, "oss/old1": 1, "oss/x": 0} {
		if got := r.listed(func(name string) bool { return name == repository }); len(got) != want {
			t.Errorf("%d posts about %s, want %d", len(got), repository, want)
		}
	}
	r.withdraw(all[0].URI)
	r.withdraw(all[1].URI)
	for i, p := range []Push{image("1", 1).as("oss/app", "v1"), image("2", 1).as("oss/app", "v2"), image("old1", 1).as("oss/old1", "v1")} {
		m.Pass(10 * time.Minute)
		r.pushed(m, p)
		if got := r.announced(uint64(7 + i)); got.Reason != "its announcement was withdrawn" {
			t.Errorf("%s:%s was pushed again: %+v", p.Repository, p.Tag, got)
		}
	}
	if got, want := r.texts(), []string{"oss/app:v0 was pushed"}; !slices.Equal(got, want) {
		t.Errorf("posts %q, want %q", got, want)
	}
	for seq := uint64(2); seq <= 6; seq++ {
		if got := r.announced(seq); got.PostURI != "" {
			t.Errorf("push %d has the result %+v", seq, got)
		}
	}
}

// A post that somebody has deleted in the account is listed as deleted. Withdrawing it keeps
// its image from being announced again.
func TestWithdrawDeletedInAccount(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	p := image("a", 1).as("oss/app", "v1")
	r.pushed(m, p)
	uri := r.listed(nil)[0].URI
	r.apply(deleteOf(uri))
	if got, want := summaryOf(r.listed(nil)), "oss/app:v1 one version account"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.account.unread.Store(true)
	if got := r.listed(nil)[0]; got.Deleted != "" || !strings.Contains(got.Unchecked, "the account cannot be read: ") {
		t.Errorf("while the account cannot be read: %+v", got)
	}
	r.account.unread.Store(false)
	if result := r.withdraw(uri); !result.Missing || result.Pending != "" {
		t.Errorf("got %+v, want that the account did not have it", result)
	}
	if got := r.announced(1); got.PostURI != "" {
		t.Errorf("the push has the result %+v", got)
	}
}

// While the account cannot be written to, a withdrawn post is deleted later.
func TestWithdrawDelayed(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	uri := r.listed(nil)[0].URI
	r.account.fail(lostRequest)
	if result := r.withdraw(uri); result.Missing || !strings.Contains(result.Pending, "cannot be written to") {
		t.Errorf("got %+v, want that it is deleted later", result)
	}
	if got, want := summaryOf(r.listed(nil)), "oss/app:v1 one version withdrawn deleting"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := r.announced(1); got.PostURI != "" {
		t.Errorf("the push has the result %+v", got)
	}
	m.Pass(time.Minute)
	r.mustStep()
	if got, want := summaryOf(r.listed(nil)), "oss/app:v1 one version withdrawn"; got != want || len(r.texts()) != 0 {
		t.Errorf("a minute later: %q with the posts %q, want %q and none", got, r.texts(), want)
	}
}

// An account that refuses to delete a post keeps it. It can be withdrawn again.
func TestWithdrawRefusedByAccount(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	uri := r.listed(nil)[0].URI
	r.account.refused = lexicon.NSIDPost
	if _, err := r.Announcements().Withdraw(t.Context(), uri); !errors.Is(err, announce.ErrRefused) {
		t.Fatalf("got %v, want that the account refuses it", err)
	}
	if got := r.listed(nil)[0]; got.Problem == "" || got.Deleting || len(r.letters()) > 0 {
		t.Errorf("got %+v and the letters %v, want a problem and none", got, r.letters())
	}
	r.account.refused = ""
	if r.withdraw(uri); len(r.texts()) != 0 || r.listed(nil)[0].Problem != "" {
		t.Errorf("posts %q, listed as %+v", r.texts(), r.listed(nil)[0])
	}
}

// The process is killed at each operation of a withdrawal, before or after it is applied. The
// post is withdrawn or not, and then the record is deleted once.
func TestWithdrawKilled(t *testing.T) {
	t.Parallel()
	decided := 0
	for left := 1; left <= 3; left++ {
		for _, applied := range []bool{false, true} {
			cfg := policy()
			cfg.Cooldown = 0
			r, m := newManualRig(t, cfg)
			r.crash = &crasher{}
			r.reopenCopy(cfg)
			r.pushed(m, image("a", 1).as("oss/app", "v1"))
			r.pushed(m, image("b", 1).as("oss/app", "v2"))
			uri := r.listed(nil)[1].URI
			r.crash.left, r.crash.applied = left, applied
			_, err := r.Announcements().Withdraw(context.Background(), uri)
			if !r.crash.dead {
				t.Fatalf("operation %d: it was not killed: %v", left, err)
			}
			r.reopenCopy(cfg)
			r.mustStep()
			m.Pass(time.Minute)
			r.mustStep()
			name := fmt.Sprintf("killed at operation %d, applied %v", left, applied)
			if left == 1 && !applied {
				if got := summaryOf(r.listed(nil)); strings.Contains(got, "withdrawn") || r.announced(1).PostURI != uri || len(r.texts()) != 2 {
					t.Errorf("%s: %q, %+v, posts %q; want that nothing has happened", name, got, r.announced(1), r.texts())
				}
				r.withdraw(uri)
			}
			decided++
			if got, want := summaryOf(r.listed(nil)), "oss/app:v2 one version; oss/app:v1 one version withdrawn"; got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
			if got, want := r.texts(), []string{"oss/app:v2 was pushed"}; !slices.Equal(got, want) || r.announced(1).PostURI != "" {
				t.Errorf("%s: posts %q, result %+v", name, got, r.announced(1))
			}
			left := 0
			if err := r.state.Scan(state.Prefix(state.Retractions), func(_, _ []byte) error { left++; return nil }); err != nil || left > 0 {
				t.Errorf("%s: %d posts are still to be deleted, %v", name, left, err)
			}
		}
	}
	if decided != 6 {
		t.Errorf("%d cases, want 6", decided)
	}
}

// The result of a push names no post that was deleted with its image.
func TestRetractedResults(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Retract = true
	r, m := newManualRig(t, cfg)
	p := image("a", 1).as("oss/app", "v1")
	r.pushed(m, p)
	r.push(p)
	m.Pass(time.Minute)
	r.mustStep()
	if got := r.announced(2); got.PostURI == "" || !got.Before {
		t.Fatalf("the image that was pushed again has the result %+v", got)
	}
	r.delete(p)
	r.mustStep()
	for seq := uint64(1); seq <= 2; seq++ {
		if got, want := r.announced(seq), (pushrow.Announce{Reason: "its post was deleted with its image"}); got != want {
			t.Errorf("push %d has the result %+v, want %+v", seq, got, want)
		}
	}
	if got, want := summaryOf(r.listed(nil)), "oss/app:v1 one version image"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The posts of a state without their rows, of an earlier version of the program, are listed
// as far as the versions of images name them.
func TestListEarlierPosts(t *testing.T) {
	t.Parallel()
	cfg := policy()
	r, m := newManualRig(t, cfg)
	for i := range 3 {
		r.pushed(m, image(fmt.Sprint(i), 1).as("oss/app", fmt.Sprint("v", i)))
	}
	m.Pass(10 * time.Minute)
	r.mustStep()
	want := summaryOf(r.listed(nil))
	var b state.Batch
	b.DeleteRange(state.Prefix(state.Posts))
	b.DeleteRange(state.Prefix(state.PostImages))
	b.Delete(state.PostsListed)
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	r.reopenCopy(cfg)
	r.mustStep()
	if got := summaryOf(r.listed(nil)); got != want || !strings.Contains(got, "v2 one version, and 1 version before it") {
		t.Errorf("got %q, want %q", got, want)
	}
	r.withdraw(r.listed(nil)[0].URI)
	if got := r.announced(2); got.PostURI != "" {
		t.Errorf("the version that joined the post has the result %+v", got)
	}
}

// After the state is lost, posts are known from the account.
func TestListRebuilt(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	uri := r.listed(nil)[0].URI
	if err := r.stores.WantRebuild(); err != nil {
		t.Fatal(err)
	}
	var b state.Batch
	for _, prefix := range []string{state.Posts, state.PostImages, state.Announcements, state.Versions} {
		b.DeleteRange(state.Prefix(prefix))
	}
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	r.reopenCopy(policy())
	r.mustStep()
	if got := r.listed(nil); len(got) != 1 || got[0].URI != uri || got[0].Repository != "oss/app" {
		t.Errorf("got %+v, want %s", got, uri)
	}
	r.withdraw(uri)
	m.Pass(time.Hour)
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	if got := r.texts(); len(got) != 0 {
		t.Errorf("posts %q, want none", got)
	}
}

// deleteOf is the write that deletes a post.
func deleteOf(uri string) repo.Write {
	return repo.Write{Action: repo.Delete, Collection: lexicon.NSIDPost, RKey: path.Base(uri)}
}

// postBy is the write of a post by the account's owner.
func postBy(t *testing.T, rkey string) repo.Write {
	t.Helper()
	record, err := lexicon.Marshal(map[string]any{"$type": lexicon.NSIDPost, "text": "hello", "createdAt": "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	return repo.Write{Action: repo.Create, Collection: lexicon.NSIDPost, RKey: rkey, Record: record}
}

// An image whose post was withdrawn stays so when it is deleted and pushed again.
func TestWithdrawThenDeleteImage(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Retract, cfg.Cooldown = true, 0
	r, m := newManualRig(t, cfg)
	p := image("a", 1).as("oss/app", "v1")
	r.pushed(m, p)
	r.withdraw(r.listed(nil)[0].URI)
	r.delete(p)
	r.mustStep()
	if _, ok, err := versions.New(r.state).Get("oss/app", "v1"); ok || err != nil {
		t.Errorf("the version of the deleted image is there: %v, %v", ok, err)
	}
	r.pushed(m, p)
	if got, want := summaryOf(r.listed(nil)), "oss/app:v1 one version withdrawn"; got != want || len(r.texts()) != 0 {
		t.Errorf("after it was pushed again: %q and the posts %q, want %q and none", got, r.texts(), want)
	}
}

// Posts are withdrawn while the sink announces others.
func TestWithdrawConcurrently(t *testing.T) {
	t.Parallel()
	cfg := shortWindows()
	cfg.Cooldown, cfg.PerDay = 0, 0
	r := newRig(t, cfg)
	const images = 12
	pushed, withdrawn := 0, map[string]bool{}
	r.until("all posts are withdrawn", func() bool {
		if pushed < images {
			r.push(image(fmt.Sprint(pushed), 1).as("oss/app", fmt.Sprint("v", pushed)))
			pushed++
		}
		for _, a := range r.listed(nil) {
			if a.Deleted != "" {
				continue
			}
			if result, err := r.Announcements().Withdraw(t.Context(), a.URI); err != nil || result.Pending != "" {
				t.Fatalf("%s: %+v, %v", a.URI, result, err)
			}
			withdrawn[a.URI] = true
		}
		return len(withdrawn) == images
	})
	if got := len(r.posts()); got != 0 {
		t.Errorf("%d posts are left", got)
	}
	for seq := uint64(1); seq <= images; seq++ {
		if got := r.announced(seq); got.PostURI != "" || got.Reason != "its announcement was withdrawn" {
			t.Errorf("push %d has the result %+v", seq, got)
		}
	}
}

// A withdrawal waits for its turn while the sink writes posts, and no longer than its context.
func TestWithdrawTurn(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Cooldown = 0
	r, m := newManualRig(t, cfg)
	r.pushed(m, image("a", 1).as("oss/app", "v1"))
	uri := r.listed(nil)[0].URI
	r.push(image("b", 1).as("oss/app", "v2"))
	m.Pass(time.Minute)
	r.account.mu.Lock() // the next call does not end
	stepped, withdrawn := make(chan error, 1), make(chan error, 1)
	go func() { stepped <- r.announceStep() }()
	r.until("the post is in the outbox", func() bool {
		has, err := state.Has(r.state, state.AnnounceOutbox)
		return has && err == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	go func() { _, err := r.Announcements().Withdraw(ctx, uri); withdrawn <- err }()
	select {
	case err := <-withdrawn:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of its context", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the withdrawal does not end with its context")
	}
	if got := r.announced(1).PostURI; got != uri {
		t.Errorf("the push has the post %q, want %s", got, uri)
	}
	r.account.mu.Unlock()
	if err := <-stepped; err != nil {
		t.Fatal(err)
	}
	r.withdraw(uri)
}
