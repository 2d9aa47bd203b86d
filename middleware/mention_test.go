package middleware

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/post"
)

// The handle is read again after a day, sooner after a failure, and only from the document
// of the owner. A handle that was known stays.
func TestMentionedOwner(t *testing.T) {
	t.Parallel()
	const did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	synctest.Test(t, func(t *testing.T) {
		var document *identity.Document
		fetched := 0
		o := &mentionedOwner{did: did, log: slog.New(slog.DiscardHandler), fetch: func(context.Context) (*identity.Document, error) {
			fetched++
			if document == nil {
				return nil, errors.New("the directory is down")
			}
			return document, nil
		}}
		named := func(did, handle string) *identity.Document {
			return &identity.Document{ID: did, AlsoKnownAs: []string{"at://" + handle}}
		}
		for i, step := range []struct {
			pass     time.Duration
			document *identity.Document
			want     post.Mention
			fetched  int
		}{
			{0, nil, post.Mention{}, 1},
			{mentionRetry / 2, named(did, "a.example.com"), post.Mention{}, 1},
			{mentionRetry, named("did:plc:another", "b.example.com"), post.Mention{}, 2},
			{mentionRetry, named(did, "a.example.com"), post.Mention{Handle: "a.example.com", DID: did}, 3},
			{time.Hour, named(did, "c.example.com"), post.Mention{Handle: "a.example.com", DID: did}, 3},
			{mentionKept, nil, post.Mention{Handle: "a.example.com", DID: did}, 4},
			{mentionRetry, named(did, "c.example.com"), post.Mention{Handle: "c.example.com", DID: did}, 5},
		} {
			time.Sleep(step.pass)
			document = step.document
			if got := o.mention(); got != step.want || fetched != step.fetched {
				t.Errorf("step %d: %+v after %d requests, want %+v after %d", i, got, fetched, step.want, step.fetched)
			}
		}
	})
}

// A post mentions the owner of its repository by the rules of owners, or else the default,
// unless that is the account that posts, or cannot be resolved.
func TestMentions(t *testing.T) {
	t.Parallel()
	const own, team, fallback = "did:web:registry.example.com", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:org.example.com"
	fetched := map[string]int{}
	m := &mentions{
		rules: owners.Rules{Default: fallback, List: []owners.Rule{
			{Repositories: []string{"team/**"}, Owner: owners.Owner{DID: team}},
			{Repositories: []string{"bob/**"}, Owner: owners.Owner{Handle: "bob.example.com"}},
			{Repositories: []string{"own/**"}, Owner: owners.Owner{DID: own}},
			{FirstComponent: true},
		}},
		account: own, log: slog.New(slog.DiscardHandler), byDID: map[string]*mentionedOwner{},
		resolve: func(_ context.Context, handle string) (string, error) {
			did, ok := map[string]string{"bob.example.com": "did:web:bob.example.com", "registry.example.com": own}[handle]
			if !ok {
				return "", errors.New("there is no such handle")
			}
			return did, nil
		},
		source: func(did string) (func(context.Context) (*identity.Document, error), error) {
			return func(context.Context) (*identity.Document, error) {
				fetched[did]++
				return &identity.Document{ID: did, AlsoKnownAs: []string{"at://name-of-" + did[len(did)-5:] + ".example.com"}}, nil
			}, nil
		},
	}
	for repository, want := range map[string]post.Mention{
		"team/app":                 {Handle: "name-of-64oiz.example.com", DID: team},
		"team/sub/app":             {Handle: "name-of-64oiz.example.com", DID: team},
		"bob/app":                  {Handle: "bob.example.com", DID: "did:web:bob.example.com"},
		"bob.example.com/app":      {Handle: "bob.example.com", DID: "did:web:bob.example.com"},
		"own/app":                  {},
		"registry.example.com/app": {},
		"alice.example.com/app":    {}, // not resolved
		"other/app":                {Handle: "name-of-e.com.example.com", DID: fallback},
	} {
		if got := m.of(repository); got != want {
			t.Errorf("%s: %+v, want %+v", repository, got, want)
		}
	}
	if len(fetched) != 2 || fetched[team] != 1 || fetched[fallback] != 1 {
		t.Errorf("read %v, want two documents once", fetched)
	}
}
