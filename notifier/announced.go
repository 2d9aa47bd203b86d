package notifier

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/store"
)

// That a digest was announced in a repository is remembered for good: about 40
// bytes each.
//
//	a/p/<hash of repository and digest>   the post's record key; empty: it was given up

const announcedPrefix = "a/p/"

func announcedKey(repository, digest string) []byte {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return append([]byte(announcedPrefix), h[:16]...)
}

func putAnnounced(b *pebble.Batch, repository, digest, rkey string) error {
	return b.Set(announcedKey(repository, digest), []byte(rkey), nil)
}

// announced reports whether a digest was announced in a repository, and in which
// post; "" if that was given up.
func (n *Notifier) announced(repository, digest string) (uri string, before bool, err error) {
	val, err := store.Read(n.State, announcedKey(repository, digest))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read announcements: %w", err)
	}
	if len(val) == 0 {
		return "", true, nil
	}
	return n.postURI(string(val)), true, nil
}

func (n *Notifier) postURI(rkey string) string {
	return "at://" + n.Account + "/" + lexicon.NSIDPost + "/" + rkey
}
