package sink

import (
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Another registry can report a manifest as private. It is then counted under a
// private name, which is never public, so it has no records and no post and does not
// show in public numbers. The next push of the same manifest decides anew. A pull
// does not say whether the manifest is private: so the images that are private are
// noted in the transaction that counts the push.
//
//	state.Private <image hash>   nothing

// ExceptPrivate is public for all names but private ones.
func ExceptPrivate(public func(repository string) bool) func(repository string) bool {
	return func(repository string) bool {
		return !strings.HasPrefix(repository, event.PrivatePrefix) && public(repository)
	}
}

// PrivateImages knows which images are private by the last push that was counted.
type PrivateImages struct {
	db      state.Store
	counted func() uint64 // sequence number of the last push event that is counted
}

// NewPrivateImages returns the private images in db. counted returns the sequence number of
// the last push event that is counted.
func NewPrivateImages(db state.Store, counted func() uint64) *PrivateImages {
	return &PrivateImages{db, counted}
}

// Has reports whether a manifest of a repository, as Event.Name returns it, is
// private.
func (p *PrivateImages) Has(repository, digest string) (bool, error) {
	private, err := state.Has(p.db, state.ImageKey(state.Private, repository, digest))
	if err != nil {
		return false, fmt.Errorf("read private images: %w", err)
	}
	return private, nil
}

// Since reports whether a manifest is private by a push after the event seq. As long
// as that event is not counted this is not known, and the later push will have its
// own effect.
func (p *PrivateImages) Since(repository, digest string, seq uint64) (bool, error) {
	if p.counted() < seq {
		return false, nil
	}
	return p.Has(repository, digest)
}
