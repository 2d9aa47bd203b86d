package lastuse

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// Resolution is how exactly times are kept. A row is therefore written at most once in that
// time for all uses of a tag or manifest.
const Resolution = time.Hour

// A Use is when a tag or manifest was last pushed and last used, in hours since 1970; 0: it
// is not known to have been.
type Use struct{ Pushed, Used int64 }

// Last returns the end of the hour of the last use or, if it was never used, of the push;
// the zero time if neither is known. It is later than the use by less than Resolution, so
// nothing is taken for unused too early.
func (u Use) Last() time.Time {
	return endOf(max(u.Pushed, u.Used))
}

// LastUsed and LastPushed are like Last, for uses and pushes alone.
func (u Use) LastUsed() time.Time   { return endOf(u.Used) }
func (u Use) LastPushed() time.Time { return endOf(u.Pushed) }

// Ended returns the Use whose LastPushed and LastUsed are given.
func Ended(pushed, used time.Time) Use {
	return Use{hourBefore(pushed), hourBefore(used)}
}

func hourBefore(end time.Time) int64 {
	if end.IsZero() {
		return 0
	}
	return hourOf(end) - 1
}

func endOf(hour int64) time.Time {
	if hour == 0 {
		return time.Time{}
	}
	return time.Unix((hour+1)*int64(Resolution/time.Second), 0).UTC()
}

func hourOf(t time.Time) int64 { return t.Unix() / int64(Resolution/time.Second) }

// maxAhead is how far in the future a time may be. Later ones were recorded while the clock
// was ahead, and the next use replaces them.
const maxAhead = int64(24 * time.Hour / Resolution)

// KeepDays is the number of days for which a last use is kept. An older one is dropped, unless
// it is that of a tag that exists: the tags of a repository have an order by their pushes.
const KeepDays = counts.KeepDays

// Oldest is the time before which a last use may have been dropped. It is a day earlier than
// KeepDays, in which a search over KeepDays ends.
func Oldest(now time.Time) time.Time { return now.Add(-(KeepDays + 1) * 24 * time.Hour).UTC() }

// Delete is the change that drops what was last used or pushed before a time.
func Delete(id ID, before time.Time) Change { return Change{ID: id, Deleted: hourOf(before)} }

// later returns the later of two times; a time that is too far in the future is replaced.
func later(old, new, now int64) int64 {
	new = min(new, now)
	if old > now+maxAhead {
		return new
	}
	return max(old, new)
}

// isUse reports whether a fact of a class says that its tag and manifest were used. Requests of
// ignored user agents and actors are no use.
func isUse(class counts.Class) bool {
	switch class {
	case counts.Pull, counts.Child, counts.Head, counts.Artifact:
		return true
	}
	return false
}

// tracked reports whether a repository can be in this registry's storage. The names of
// images that other registries have contain a DID, or begin with event.PrivatePrefix.
func tracked(repository string) bool {
	return repository != "" && !strings.Contains(repository, ":")
}

// ErrDamaged is the error for a row that can't be decoded.
var ErrDamaged = errors.New("damaged row of last use")

// A row on disk is two uvarints: Pushed and Used.
func (u Use) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(u.Pushed)), uint64(u.Used))
}

func decode(b []byte) (Use, error) {
	pushed, n := binary.Uvarint(b)
	if n <= 0 {
		return Use{}, ErrDamaged
	}
	used, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return Use{}, ErrDamaged
	}
	return Use{int64(pushed), int64(used)}, nil
}

// Max returns the later times of both.
func (u Use) Max(o Use) Use { return Use{max(u.Pushed, o.Pushed), max(u.Used, o.Used)} }

// A Change is a new last use of a tag or manifest, or its delete.
type Change struct {
	ID      ID
	Use     Use
	Deleted int64 // the hour of the delete, since 1970; 0: it was not deleted
}

// Known says which uses are known.
type Known struct {
	Since   time.Time // the uses are known from here on
	Missing string    // which of the later ones are not; empty: none
}
