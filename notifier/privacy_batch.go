package notifier

import (
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// privateBatch collects what events that are counted together change.
type privateBatch struct {
	images  *sink.PrivateImages
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
		if private, err = b.images.Has(public, e.ManifestDigest); err != nil {
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
