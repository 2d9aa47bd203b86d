package repo

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// restate puts a fresh commit of a tree into the batch, and a #sync of it
// instead of a #commit: whatever subscribers knew before, this is so. A rev that
// is dated ahead no relay has accepted, and it is left behind.
func (w *writer) restate(b *pebble.Batch, data cid.Cid) error {
	now, known := w.cfg.Now(), w.next
	if known.Rev != "" && known.ahead(now) > maxAhead {
		known.Rev = ""
	}
	seq, rev, err := known.tick(now)
	if err != nil {
		return err
	}
	if w.next, err = w.commitOf(data, seq, rev); err != nil {
		return err
	}
	return w.addNotice(b, Sync)
}

// addIdentity logs #identity, also while the rev is ahead.
func (w *writer) addIdentity(b *pebble.Batch) error {
	rev := w.next.Rev
	if w.next.ahead(w.cfg.Now()) > maxAhead {
		w.next.Rev = ""
	}
	err := w.addNotice(b, Identity)
	w.next.Rev = rev
	return err
}
