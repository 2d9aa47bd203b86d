package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/post"
)

const (
	mentionKept    = 24 * time.Hour   // how long a handle is used
	mentionRetry   = 10 * time.Minute // after a failure, also of a handle that is known
	mentionTimeout = 5 * time.Second  // a post waits for it
)

// A mentionedOwner is an owner that the options name by its DID. Its handle is that of its
// DID document; while that can't be read, posts have the last known one, or none.
type mentionedOwner struct {
	did   string
	fetch func(ctx context.Context) (*identity.Document, error)
	log   *slog.Logger

	mu    sync.Mutex
	known post.Mention
	next  time.Time // when it is read again
}

// mentions says which account the post of a repository mentions: its owner, unless that is
// the account that posts.
type mentions struct {
	rules   owners.Rules
	account string
	resolve func(ctx context.Context, handle string) (did string, err error)
	source  func(did string) (fetch func(ctx context.Context) (*identity.Document, error), err error)
	log     *slog.Logger

	mu    sync.Mutex
	byDID map[string]*mentionedOwner // of the rules, so there are few
}

// mention returns what announce.Config.Mention needs; nil if posts have no mention.
func (r *runtime) mention() func(repository string) post.Mention {
	if !r.options.Announce.MentionOwner {
		return nil
	}
	m := &mentions{
		rules: r.ownerRules(), account: r.account, log: r.log, byDID: map[string]*mentionedOwner{},
		resolve: func(ctx context.Context, handle string) (string, error) { return r.handles.Resolve(ctx, handle) },
		source: func(did string) (func(ctx context.Context) (*identity.Document, error), error) {
			source, err := identity.NewSource(did, r.options.Directory())
			if err != nil {
				return nil, err
			}
			return source.Fetch, nil
		},
	}
	return m.of
}

// of returns the mention of the owner of a repository; zero if there is none.
func (m *mentions) of(repository string) post.Mention {
	owner := m.rules.Of(repository)
	if owner.Handle != "" {
		ctx, cancel := context.WithTimeout(context.Background(), mentionTimeout)
		defer cancel()
		did, err := m.resolve(ctx, owner.Handle)
		if err != nil {
			m.log.Warn("the handle of the owner cannot be resolved, so a post does not mention it", "repository", repository, "owner", owner.Handle, "error", err)
		}
		if err != nil || did == m.account {
			return post.Mention{}
		}
		return post.Mention{Handle: owner.Handle, DID: did}
	}
	if owner.DID == "" || owner.DID == m.account {
		return post.Mention{}
	}
	known, err := m.owner(owner.DID)
	if err != nil {
		m.log.Warn("the owner cannot be mentioned", "repository", repository, "owner", owner.DID, "error", err)
		return post.Mention{}
	}
	return known.mention()
}

// owner returns what is known of an owner.
func (m *mentions) owner(did string) (*mentionedOwner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.byDID[did]; known != nil {
		return known, nil
	}
	fetch, err := m.source(did)
	if err != nil {
		return nil, err
	}
	m.byDID[did] = &mentionedOwner{did: did, fetch: fetch, log: m.log}
	return m.byDID[did], nil
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
