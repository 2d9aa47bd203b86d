package notifier

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Another registry may tell that a manifest is private. It is then counted under
// a name of its own, which the gate never lets through: so it has no record, no
// post, and no place in what everybody sees. The same manifest pushed again is as
// that push says. Which manifests are private is noted in the transaction that
// counts the push, for a pull does not tell it:
//
//	v/<hash of repository and digest>   nothing

// privatePrefix begins the names under which private manifests are counted. No
// repository and no DID begins so.
const privatePrefix = "private:"

// private reports whether a push told that its manifest is. A visibility that is
// not known here is not public.
func (e *Event) private() bool {
	return e.Visibility != "" && e.Visibility != lexicon.VisibilityPublic
}

// revealed is the event as it would be if it were public.
func (e *Event) revealed() *Event {
	public := *e
	public.Visibility = ""
	return &public
}

// gated lets no private name through.
func gated(public func(repository string) bool) func(repository string) bool {
	return func(repository string) bool {
		return !strings.HasPrefix(repository, privatePrefix) && public(repository)
	}
}

func privateKey(repository, digest string) []byte {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return append([]byte("v/"), h[:16]...)
}

// isPrivate reports whether a manifest of a repository, as Event.Name gives it, is
// private by the last push that was counted.
func (n *Notifier) isPrivate(repository, digest string) (bool, error) {
	_, err := n.State.Get(privateKey(repository, digest))
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what is private: %w", err)
	}
	return true, nil
}

// hidden reports whether a manifest is private by a push that came after the event
// of a number. While that is not counted yet it is not known, and the later push
// will have its effect.
func (n *Notifier) hidden(repository, digest string, after uint64) (bool, error) {
	if n.Counter.Latest(uint8(journal.Pushes)) < after {
		return false, nil
	}
	return n.isPrivate(repository, digest)
}

// A privateBatch gathers what events that are counted together tell of what is
// private.
type privateBatch struct {
	n       *Notifier
	changed map[string]bool // by key
}

// name takes an event in, and is what it counts under.
func (b *privateBatch) name(e *Event) (string, error) {
	if e.Operation == opPull && e.Call == nil || e.Operation != opPull && e.Class == "" {
		return e.Name(), nil // which nobody has told
	}
	key := string(privateKey(e.revealed().Name(), e.ManifestDigest))
	private, known := b.changed[key]
	if !known {
		var err error
		if private, err = b.n.isPrivate(e.revealed().Name(), e.ManifestDigest); err != nil {
			return "", err
		}
	}
	if e.Operation == opPush {
		if private != e.private() {
			if b.changed == nil {
				b.changed = map[string]bool{}
			}
			b.changed[key] = e.private()
		}
		return e.Name(), nil
	}
	if private {
		return privatePrefix + e.Name(), nil
	}
	return e.Name(), nil
}

// put adds the changes to what is counted.
func (b *privateBatch) put(batch *state.Batch) error {
	for key, private := range b.changed {
		if private {
			batch.Set([]byte(key), nil)
		} else {
			batch.Delete([]byte(key))
		}
	}
	return nil
}
