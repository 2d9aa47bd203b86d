package appview

import (
	"context"
	"errors"
	"net/url"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	maxURIs   = 25      // of a request, by the schema of app.bsky.feed.getPosts
	maxAnswer = 1 << 20 // bytes
)

// getPosts returns those posts that the AppView has.
func (w *Watcher) getPosts(ctx context.Context, uris []string) (indexed []string, err error) {
	const method = "app.bsky.feed.getPosts"
	var answer struct {
		Posts []struct {
			URI string `json:"uri"`
		} `json:"posts"`
	}
	if err := guard.Query(ctx, w.client, w.url, method, url.Values{"uris": uris}, maxAnswer, &answer); err != nil {
		return nil, err
	}
	if answer.Posts == nil {
		return nil, errors.New(method + ": invalid answer: it has no list of posts")
	}
	for _, post := range answer.Posts {
		indexed = append(indexed, post.URI)
	}
	return indexed, nil
}
