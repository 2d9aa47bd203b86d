package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/notifier/post"
)

const (
	mentionKept    = 24 * time.Hour   // how long a handle is used
	mentionRetry   = 10 * time.Minute // after a failure, also of a handle that is known
	mentionTimeout = 5 * time.Second  // a post waits for it
)

// A mentionedOwner is the account that posts mention. Its handle is that of its DID
// document; while that can't be read, posts have the last known one, or none.
type mentionedOwner struct {
	did   string
	fetch func(ctx context.Context) (*identity.Document, error)
	log   *slog.Logger

	mu    sync.Mutex
	known post.Mention
	next  time.Time // when it is read again
}

// mention returns what announce.Config.Mention needs; nil if posts have no mention.
func (r *runtime) mention() (func() post.Mention, error) {
	did := r.options.Owner
	if !r.options.Announce.MentionOwner || did == r.account {
		return nil, nil
	}
	source, err := identity.NewSource(did, r.options.Directory())
	if err != nil {
		return nil, err
	}
	owner := &mentionedOwner{did: did, fetch: source.Fetch, log: r.log}
	return owner.mention, nil
}

func (o *mentionedOwner) mention() post.Mention {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Before(o.next) {
		return o.known
	}
	ctx, cancel := context.WithTimeout(context.Background(), mentionTimeout)
	defer cancel()
	document, err := o.fetch(ctx)
	if err == nil && document.ID != o.did {
		err = fmt.Errorf("it is the DID document of %s", document.ID)
	}
	if err != nil {
		o.log.Warn("the handle of the owner is not known, so posts do not mention it", "owner", o.did, "error", err)
		o.next = time.Now().Add(mentionRetry)
		return o.known
	}
	o.known, o.next = post.Mention{Handle: document.Handle(), DID: o.did}, time.Now().Add(mentionKept)
	return o.known
}
