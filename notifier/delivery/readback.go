package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// Missing returns the indexes of the writes that are not applied.
func (a *Repo) Missing(ctx context.Context, writes []repo.Write) ([]int, error) {
	return a.missingOf(ctx, writes, all(writes))
}

// missingOf returns those of the indexes whose writes are not applied.
func (a *Repo) missingOf(ctx context.Context, part []repo.Write, indexes []int) ([]int, error) {
	listed, err := a.list(ctx, pick(part, indexes))
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	var missing []int
	for _, i := range indexes {
		w := part[i]
		done, err := a.done(ctx, w, listed)
		if errors.Is(err, ErrConflict) {
			return nil, &repo.WriteError{Index: i, Path: w.Collection + "/" + w.RKey, Err: ErrConflict}
		}
		if err != nil {
			return nil, err
		}
		if !done {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// Done reports whether a write is applied: whether the record of a create or an update
// exists, or that of a delete does not. It returns ErrConflict if the key of a create has
// another record.
func (a *Repo) Done(ctx context.Context, w repo.Write) (bool, error) { return a.done(ctx, w, nil) }

func (a *Repo) done(ctx context.Context, w repo.Write, listed map[string]cid.Cid) (bool, error) {
	got, known := listed[w.Collection+"/"+w.RKey]
	err := error(nil)
	if !known {
		got, _, err = a.Get(ctx, w.Collection, w.RKey)
	}
	if known && !got.Defined() {
		err = repo.ErrNotFound
	}
	switch {
	case errors.Is(err, repo.ErrNotFound):
		return w.Action == repo.Delete, nil
	case err != nil:
		return false, fmt.Errorf("read back: %w", err)
	case w.Action == repo.Delete:
		return false, nil
	case got == block.CIDOf(w.Record):
		return true, nil
	case w.Action == repo.Update:
		return false, nil
	}
	return false, ErrConflict
}

// Undo returns deletes for those creates that are applied.
func (a *Repo) Undo(ctx context.Context, writes []repo.Write) ([]repo.Write, error) {
	var deletes []repo.Write
	for _, w := range writes {
		if w.Action != repo.Create {
			continue
		}
		done, err := a.Done(ctx, w)
		if err != nil && !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if done {
			deletes = append(deletes, repo.Write{Action: repo.Delete, Collection: w.Collection, RKey: w.RKey})
		}
	}
	return deletes, nil
}

// Reading many records takes fewer calls with pages of a list than with a call for each.
const (
	listFrom   = 8   // records
	listPage   = 100 // records
	sparePages = 10  // pages that may be read in addition to those that the records fill
)

// list returns the CIDs of the records of writes, by path, as far as a list of each
// collection shows them: undefined for a record that does not exist. Records that are
// not in the result have to be read one by one.
func (a *Repo) list(ctx context.Context, writes []repo.Write) (map[string]cid.Cid, error) {
	keys := map[string][]string{} // by collection
	for _, w := range writes {
		keys[w.Collection] = append(keys[w.Collection], w.RKey)
	}
	listed := map[string]cid.Cid{}
	for collection, wanted := range keys {
		if len(wanted) < listFrom {
			continue
		}
		slices.Sort(wanted)
		if err := a.listRange(ctx, collection, wanted, listed); err != nil {
			return nil, err
		}
	}
	return listed, nil
}

// listRange adds the CIDs of records with the wanted keys, which are in ascending order.
// It adds nothing if the PDS does not list the records after a key.
func (a *Repo) listRange(ctx context.Context, collection string, wanted []string, listed map[string]cid.Cid) error {
	first, err := syntax.ParseTID(wanted[0])
	if err != nil {
		return nil // there is no key before it to begin after
	}
	cursor := syntax.NewTID(first.Time().UnixMicro()-1, 0).String()
	found := map[string]cid.Cid{}
	last := wanted[len(wanted)-1]
	for pages := len(wanted)/listPage + sparePages; ; pages-- {
		page, next, err := a.List(ctx, collection, cursor, listPage, true)
		var failed *pds.Error
		if errors.As(err, &failed) && failed.Outcome == pds.Refused {
			return nil // the cursor, probably
		}
		if err != nil {
			return err
		}
		for _, r := range page {
			if r.RKey <= cursor {
				return nil
			}
			found[r.RKey] = r.CID
			cursor = r.RKey
		}
		if next == "" || cursor >= last {
			break
		}
		if pages == 0 {
			return nil // other records are in between
		}
	}
	return a.addListed(ctx, collection, wanted, found, listed)
}

// addListed adds what a list shows of the wanted keys. The first and the last record that
// it does not show are read, because a PDS may give cursors another meaning; if one of them
// exists, nothing of the list is used.
func (a *Repo) addListed(ctx context.Context, collection string, wanted []string, found, listed map[string]cid.Cid) error {
	notShown := slices.DeleteFunc(slices.Clone(wanted), func(key string) bool { return found[key].Defined() })
	if n := len(notShown); n > 2 {
		notShown = []string{notShown[0], notShown[n-1]}
	}
	for _, key := range notShown {
		_, _, err := a.Get(ctx, collection, key)
		if err == nil {
			return nil
		}
		if !errors.Is(err, repo.ErrNotFound) {
			return err
		}
	}
	for _, key := range wanted {
		listed[collection+"/"+key] = found[key]
	}
	return nil
}
