package notifier

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// Each written post is reported once, also if the answer to its write was lost.
func TestPosted(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var posted []string
	announce, begun := shortWindows(), time.Now()
	announce.Posted = func(uri string, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		posted = append(posted, uri)
		if at.Before(begun) || at.After(time.Now()) {
			t.Errorf("%s was written at %s", uri, at)
		}
	}
	r := newRig(t, announce)
	r.account.fail(lostAnswer, lostRequest, lostAnswer)
	for _, tag := range []string{"v1", "v2", "v3"} {
		r.push(image(tag, 1).as("oss/app", tag))
	}
	r.push(image("private", 1).as("secret/app", "v1"))
	r.drain()
	var want []string
	page, _, err := r.repo.List("app.bsky.feed.post", "", 10, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, post := range page {
		want = append(want, "at://"+owner+"/app.bsky.feed.post/"+post.RKey)
	}
	slices.Sort(posted)
	if len(want) != 3 || !slices.Equal(posted, want) {
		t.Errorf("reported %s, want %s", posted, want)
	}
}
