package counter

import (
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
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
	tagged, known, err := pushed.Refers(f.b, &fact)
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
