// Package layout defines the format of a repo on disk: the keys and values of its
// Pebble database and the files of its blobs. It is shared by the packages
// that read and write them, atproto/repo and atproto/repo/repair.
package layout

import (
	"encoding/binary"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/internal/store"
)

// The keys of the database:
//
//	f                    format number, 4 bytes
//	h                    head: see State.Encode
//	n/<digest>           an encoded node of the tree
//	r/<path>             a record: its digest, then its bytes. The key is the path,
//	                     so that equal records need no count and an export is one scan
//	i/<digest><path>     empty; the paths at which a record is
//	e/<seq>              an event: bytes of all frames before it, then its frame
//	b/<digest>           a blob that is stored, referred to, or both: see BlobRow
//	x/<digest><path>     a record that refers to a blob: the rev that wrote it
//	y/<path>             the digests of the blobs that a record refers to
//	u/<micros><digest>   a stored blob that no record has referred to since then
//	l                    sequence number of the last event that was dropped
//	m                    where the account has moved to; missing while it is here
//	w                    name of the folder that the repo is in
//
// A path is collection/rkey; numbers are big-endian. Every change is one batch,
// so no row is ever behind another.
const (
	PrefixNode     = "n/"
	PrefixRecord   = "r/"
	PrefixIndex    = "i/"
	PrefixEvent    = "e/"
	PrefixBlob     = "b/"
	PrefixBlobUse  = "x/"
	PrefixBlobRefs = "y/"
	PrefixIdleBlob = "u/"
)

var (
	KeyFormat  = []byte("f")
	KeyHead    = []byte("h")
	KeyDropped = []byte("l")
	KeyMoved   = []byte("m")
	KeyFolder  = []byte("w")
)

// ErrDamaged is the error for contents that no program writes.
var ErrDamaged = errors.New("the repo is damaged: stop the server, then `tidings hold verify` shows the damage and `tidings hold repair` repairs what it can")

func NodeKey(digest []byte) []byte { return append([]byte(PrefixNode), digest...) }

func RecordKey(path string) []byte { return []byte(PrefixRecord + path) }

func IndexKey(c cid.Cid, path string) []byte {
	return append(append([]byte(PrefixIndex), block.DigestOf(c)...), path...)
}

func EventKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(PrefixEvent), seq)
}

func BlobKey(d block.Digest) []byte { return append([]byte(PrefixBlob), d[:]...) }

func BlobUseKey(d block.Digest, path string) []byte {
	return append(append([]byte(PrefixBlobUse), d[:]...), path...)
}

func BlobRefsKey(path string) []byte { return []byte(PrefixBlobRefs + path) }

func IdleBlobKey(since uint64, d block.Digest) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(PrefixIdleBlob), since), d[:]...)
}

// End returns the first key after those with a prefix.
func End(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; ; i-- {
		end[i]++
		if end[i] != 0 {
			return end // at the latest in the first two bytes, which are text
		}
	}
}

// Iterate returns an iterator over the keys with a prefix.
func Iterate(db store.Reader, prefix string) (store.Iterator, error) {
	return db.NewIter(store.Range{Start: []byte(prefix), End: End(prefix)})
}

// Count returns the number of keys with a prefix.
func Count(db store.Reader, prefix string) (n int64, err error) {
	it, err := Iterate(db, prefix)
	if err != nil {
		return 0, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n, it.Error()
}

// read returns a value, nil if there is no such key.
func read(db store.Reader, key []byte) ([]byte, error) {
	val, err := store.Read(db, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return val, err
}
