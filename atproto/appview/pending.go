package appview

import (
	"slices"
	"time"
)

// Post is a post in the account's repo.
type Post struct {
	URI       string // at://DID/app.bsky.feed.post/KEY
	CreatedAt time.Time
}

// pending are the posts that the AppView is not known to have, oldest first.
type pending struct {
	posts   []pendingPost
	indexed string // URI of the newest indexed post: keys are TIDs, which sort by time
}

type pendingPost struct {
	uri     string
	written time.Time
	exact   bool // false: it was found in the repo, and was written earlier
}

// add adds a post. If there are many it does nothing: those that there are show as well
// whether posts are indexed, and must stay until they are late.
func (p *pending) add(one pendingPost) {
	known := slices.ContainsFunc(p.posts, func(has pendingPost) bool { return has.uri == one.uri })
	if !known && len(p.posts) < maxPosts {
		p.posts = append(p.posts, one)
	}
}

func (p *pending) uris() []string {
	list := make([]string, len(p.posts))
	for i, one := range p.posts {
		list[i] = one.uri
	}
	return list
}

// remove removes a post that is indexed and returns it; false if it was not pending.
func (p *pending) remove(uri string) (pendingPost, bool) {
	i := slices.IndexFunc(p.posts, func(one pendingPost) bool { return one.uri == uri })
	if i < 0 {
		return pendingPost{}, false
	}
	one := p.posts[i]
	p.posts = slices.Delete(p.posts, i, i+1)
	p.indexed = max(p.indexed, uri)
	return one, true
}

// late returns the posts that should have been indexed.
func (p *pending) late(now time.Time) []pendingPost {
	var list []pendingPost
	for _, one := range p.posts {
		if now.Sub(one.written) >= lateAfter {
			list = append(list, one)
		}
	}
	return list
}

// forget removes the posts that are not recent. The last post is kept unless a newer one
// was indexed, to notice when the AppView indexes posts again.
func (p *pending) forget(now time.Time) {
	last := len(p.posts) - 1
	for i := last; i >= 0; i-- {
		one := p.posts[i]
		if now.Sub(one.written) >= recent && (i != last || p.indexed > one.uri) {
			p.posts = slices.Delete(p.posts, i, i+1)
		}
	}
}

// forgetDeleted removes those of the late posts that the account has deleted. newest are
// its newest posts by descending key; posts with lower keys exist if there are many.
func (p *pending) forgetDeleted(late []pendingPost, newest []Post) {
	for _, one := range late {
		exists := slices.ContainsFunc(newest, func(has Post) bool { return has.URI == one.uri })
		older := len(newest) >= maxPosts && one.uri < newest[len(newest)-1].URI
		if !exists && !older {
			p.posts = slices.DeleteFunc(p.posts, func(has pendingPost) bool { return has.uri == one.uri })
		}
	}
}

// interval returns the time from one request to the next: as long as the newest post is
// pending. It must not be empty.
func (p *pending) interval(now time.Time) time.Duration {
	age := now.Sub(p.posts[len(p.posts)-1].written)
	if age >= recent {
		return rarely
	}
	return max(pause, min(age, every))
}
