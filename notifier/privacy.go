package notifier

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

// exceptPrivate is public for all names but private ones.
func exceptPrivate(public func(repository string) bool) func(repository string) bool {
	return func(repository string) bool {
		return !strings.HasPrefix(repository, event.PrivatePrefix) && public(repository)
	}
}

// privateImages knows which images are private by the last push that was counted.
type privateImages struct {
	db      state.Store
	counted func() uint64 // sequence number of the last push event that is counted
}

// has reports whether a manifest of a repository, as Event.Name returns it, is
// private.
func (p *privateImages) has(repository, digest string) (bool, error) {
	private, err := state.Has(p.db, state.ImageKey(state.Private, repository, digest))
	if err != nil {
		return false, fmt.Errorf("read private images: %w", err)
	}
	return private, nil
}

// since reports whether a manifest is private by a push after the event seq. As long
// as that event is not counted this is not known, and the later push will have its
// own effect.
func (p *privateImages) since(repository, digest string, seq uint64) (bool, error) {
	if p.counted() < seq {
		return false, nil
	}
	return p.has(repository, digest)
}

// privateBatch collects what events that are counted together change.
type privateBatch struct {
	images  *privateImages
	changed map[string]bool // by key
}

// countedName takes an event into account, and returns the name that it is counted
// under.
func (b *privateBatch) countedName(e *event.Event) (string, error) {
	if e.Operation == event.OpPull && e.Inbound == nil || e.Operation != event.OpPull && e.Class == "" {
		return e.Name(), nil // not from another registry
	}
	public := e.AsPublic().Name()
	key := string(state.ImageKey(state.Private, public, e.ManifestDigest))
	private, known := b.changed[key]
	if !known {
		var err error
		if private, err = b.images.has(public, e.ManifestDigest); err != nil {
			return "", err
		}
	}
	if e.Operation == event.OpPush {
		if private != e.Private() {
			if b.changed == nil {
				b.changed = map[string]bool{}
			}
			b.changed[key] = e.Private()
		}
		return e.Name(), nil
	}
	if private {
		return event.PrivatePrefix + e.Name(), nil
	}
	return e.Name(), nil
}

// addTo adds the changes to the batch that counts the events.
func (b *privateBatch) addTo(batch *state.Batch) {
	for key, private := range b.changed {
		if private {
			batch.Set([]byte(key), nil)
		} else {
			batch.Delete([]byte(key))
		}
	}
}
