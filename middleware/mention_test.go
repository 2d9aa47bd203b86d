package middleware

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
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
