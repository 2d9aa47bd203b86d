package middleware

import (
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/clock"
)

// openAppView creates the watcher that asks an AppView whether it has indexed the
// account's posts.
func (r *runtime) openAppView() error {
	address := r.options.AppView()
	if address == appview.Off {
		return nil
	}
	metrics := appview.NewMetrics()
	watcher, err := appview.New(appview.Config{
		AppView: address, Newest: r.newestPosts, Now: clock.Now, Metrics: metrics, Logger: r.log,
	})
	if err != nil {
		return err
	}
	r.register(metrics.Collectors()...)
	r.appview = watcher
	return nil
}

// newestPosts returns up to limit posts in the account's repo, in descending order of
// their keys. CreatedAt is the time of the key, zero if the key is no TID.
func (r *runtime) newestPosts(ctx context.Context, limit int) ([]appview.Post, error) {
	records, _, err := r.writes.List(ctx, lexicon.NSIDPost, "", limit, false)
	if err != nil {
		return nil, err
	}
	posts := make([]appview.Post, len(records))
	for i, record := range records {
		posts[i].URI = "at://" + r.account + "/" + lexicon.NSIDPost + "/" + record.RKey
		if key, err := syntax.ParseTID(record.RKey); err == nil {
			posts[i].CreatedAt = key.Time()
		}
	}
	return posts, nil
}
