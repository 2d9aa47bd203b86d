package repo

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/internal/store"
)

// Record is one record of a List.
type Record struct {
	RKey  string
	CID   cid.Cid
	Value []byte // DAG-CBOR
}

// Bounds of List.
const (
	defaultPage = 50
	maxPage     = 1000
	listBytes   = 1 << 20 // of records, after which a page ends
)

// Get returns one record, or ErrNotFound.
func (r *Repo) Get(collection, rkey string) (cid.Cid, []byte, error) {
	v, err := r.acquire()
	if err != nil {
		return cid.Undef, nil, err
	}
	defer r.release(v)
	return v.get(joinPath(collection, rkey))
}

func (v *view) get(path string) (cid.Cid, []byte, error) {
	val, err := store.Read(v.snap, recordKey(path))
	if errors.Is(err, pebble.ErrNotFound) {
		return cid.Undef, nil, ErrNotFound
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return soundRecord(path, val)
}

// List returns up to limit records of a collection (0: 50; at most 1000), fewer
// if they are large, in the order of com.atproto.repo.listRecords: the highest record key first,
// with reverse the lowest first. It starts behind cursor, a record key; next is
// the cursor of the following page, empty when there is none.
func (r *Repo) List(collection, cursor string, limit int, reverse bool) (page []Record, next string, err error) {
	if err := validCollection(collection); err != nil {
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
	prefix := prefixRecord + collection + "/"
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
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
		c, record, err := soundRecord(string(it.Key()[len(prefixRecord):]), val)
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

// Collections returns the NSIDs that have records, sorted. It reads one key
// for each.
func (r *Repo) Collections() ([]string, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixRecord), UpperBound: after(prefixRecord)})
	if err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	defer it.Close()
	var names []string
	for ok := it.First(); ok; {
		name, _ := splitPath(string(it.Key()[len(prefixRecord):]))
		names = append(names, name)
		ok = it.SeekGE(after(prefixRecord + name + "/"))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// Block returns the bytes of the head commit, a node of its tree or a record in
// it. Anything else is ErrNotFound.
func (r *Repo) Block(c cid.Cid) ([]byte, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	f, err := v.finder()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := f.load(c)
	return slices.Clone(data), err
}
