package repo

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Record is a record in a page of List.
type Record struct {
	RKey  string
	CID   cid.Cid
	Value []byte // DAG-CBOR
}

// Bounds of List.
const (
	defaultPage = 50
	maxPage     = 1000
	listBytes   = 1 << 20 // of records; a page ends after them
)

// Get returns one record, or ErrNotFound.
func (r *Repo) Get(collection, rkey string) (cid.Cid, []byte, error) {
	v, err := r.acquire()
	if err != nil {
		return cid.Undef, nil, err
	}
	defer r.release(v)
	return v.get(mst.JoinPath(collection, rkey))
}

func (v *view) get(path string) (cid.Cid, []byte, error) {
	val, err := store.Read(v.snap, layout.RecordKey(path))
	if errors.Is(err, store.ErrNotFound) {
		return cid.Undef, nil, ErrNotFound
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return layout.VerifyRecord(path, val)
}

// List returns up to limit records of a collection (0: 50; at most 1000), fewer
// if they are large, in the order of com.atproto.repo.listRecords: descending
// record keys, with reverse ascending. It starts after cursor, a record key; next
// is the cursor of the following page, empty at the end.
func (r *Repo) List(collection, cursor string, limit int, reverse bool) (page []Record, next string, err error) {
	if err := mst.CheckCollection(collection); err != nil {
		return nil, "", err
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	v, err := r.acquire()
	if err != nil {
		return nil, "", err
	}
	defer r.release(v)
	prefix := layout.PrefixRecord + collection + "/"
	it, err := layout.Iterate(v.snap, prefix)
	if err != nil {
		return nil, "", fmt.Errorf("list %s: %w", collection, err)
	}
	defer it.Close()
	step := it.Prev
	ok := false
	switch {
	case reverse:
		step = it.Next
		ok = it.SeekGE([]byte(prefix + cursor))
		if ok && cursor != "" && string(it.Key()) == prefix+cursor {
			ok = it.Next()
		}
	case cursor != "":
		ok = it.SeekLT([]byte(prefix + cursor))
	default:
		ok = it.Last()
	}
	size := 0
	for ; ok; ok = step() {
		if len(page) == limit || size >= listBytes {
			next = page[len(page)-1].RKey
			break
		}
		val, err := it.ValueAndErr()
		if err != nil {
			return nil, "", fmt.Errorf("list %s: %w", collection, err)
		}
		c, record, err := layout.VerifyRecord(string(it.Key()[len(layout.PrefixRecord):]), val)
		if err != nil {
			return nil, "", fmt.Errorf("list %s: %w", collection, err)
		}
		page = append(page, Record{string(it.Key()[len(prefix):]), c, slices.Clone(record)})
		size += len(record)
	}
	if err := it.Error(); err != nil {
		return nil, "", fmt.Errorf("list %s: %w", collection, err)
	}
	return page, next, nil
}

// Collections returns the NSIDs of all collections, sorted. It reads one key of
// each.
func (r *Repo) Collections() ([]string, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := layout.Iterate(v.snap, layout.PrefixRecord)
	if err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	defer it.Close()
	var names []string
	for ok := it.First(); ok; {
		name, _ := mst.SplitPath(string(it.Key()[len(layout.PrefixRecord):]))
		names = append(names, name)
		ok = it.SeekGE(layout.End(layout.PrefixRecord + name + "/"))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	slices.Sort(names)
	return names, nil
}
