package counter

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// An account that is not configured can report pulls of any repository, tag and digest. So
// that it cannot create rows, such a pull is counted only if the digest was pushed to the
// repository before, and for its tag only if that refers to the digest. It adds no index
// entries.

// addUnlisted counts a pull that an unlisted account reported, if its image is known.
func (f *folding) addUnlisted(fact counts.Fact) error {
	class := fact.Class.Index()
	if class < 0 || fact.Repository == "" {
		return nil
	}
	tagged, known, err := f.pushed(&fact)
	if err != nil || !known && !fact.Known {
		return err
	}
	if !tagged {
		fact.Tag = ""
	}
	fact.Unlisted = false
	f.c.newUnlisted = append(f.c.newUnlisted, fact)
	return f.count(&fact, class)
}

// pushed reports whether the fact's tag refers to its digest, and whether any tag of the
// repository does.
func (f *folding) pushed(fact *counts.Fact) (tagged, known bool, err error) {
	key := pushedKey(fact.Repository, fact.Digest, fact.Tag)
	if tagged, err = store.Has(f.b, key); tagged || err != nil {
		return tagged, tagged, err
	}
	prefix := key[:len(key)-4]
	iter, err := f.b.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: store.PrefixEnd(prefix)})
	if err != nil {
		return false, false, err
	}
	known = iter.First()
	return false, known, errors.Join(iter.Error(), iter.Close())
}
