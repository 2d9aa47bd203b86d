package ledger

import "slices"

// A Push asks for the records of a manifest.
type Push struct {
	Repository string
	First      int64 // unix microseconds in the first TID of the push
	ClockID    uint
	Records    int
}

// Push returns the entry after the push, and whether its records are to be
// written now, under the keys in the entry. A manifest that is claimed is
// written under the claimed keys, whoever claimed them; one that is written
// already, or was deleted after this push, is not written.
func (e Entry) Push(p Push) (next Entry, write bool) {
	switch e.State {
	case Written:
		return e.with(p.Repository), false
	case Claimed:
		return e.with(p.Repository), true
	case Deleted:
		if p.First <= e.Deleted {
			return e, false
		}
	}
	return Entry{
		State:        Claimed,
		First:        p.First,
		ClockID:      p.ClockID,
		Records:      p.Records,
		Repositories: []string{p.Repository},
	}, true
}

// Delete returns the entry after the manifest was deleted from a repository at
// the given time (unix microseconds), and whether its records are to be
// deleted now. They stay while another repository has the manifest. A manifest
// that was never recorded leaves a tombstone too: a push of it that is older
// may still be on its way.
func (e Entry) Delete(repository string, at int64) (next Entry, remove bool) {
	switch e.State {
	case Written, Claimed:
		if at < e.First {
			return e, false
		}
		e.Repositories = slices.DeleteFunc(slices.Clone(e.Repositories), func(r string) bool { return r == repository })
		if len(e.Repositories) > 0 {
			return e, false
		}
		remove = true
	}
	e.State, e.Deleted, e.Repositories = Deleted, max(e.Deleted, at), nil
	return e, remove
}

// Settle returns the entry once its records are known to be written.
func (e Entry) Settle() Entry {
	if e.State == Claimed {
		e.State = Written
	}
	return e
}

func (e Entry) with(repository string) Entry {
	if !slices.Contains(e.Repositories, repository) {
		e.Repositories = append(slices.Clone(e.Repositories), repository)
		slices.Sort(e.Repositories)
	}
	return e
}
