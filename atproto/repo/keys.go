package repo

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// What is in the database:
//
//	f                    format number, 4 bytes
//	h                    head: seq, bytes of frames ever logged, commit block
//	n/<digest>           a node of the tree
//	r/<path>             a record: its digest, then its bytes. By path, so that
//	                     equal records need no count and Export is one scan.
//	i/<digest><path>     where a record is, for Block
//	e/<seq>              a frame: bytes of frames logged before it, then itself
//	b/ x/ y/ u/          blobs, see blob_index.go
//	l                    seq of the last event that is no longer kept
//	m                    where the account has moved to; missing while it is here
//	w                    name of the folder that the repository is in
//
// Every block here is dag-cbor under sha2-256, so a digest stands for a CID.
const (
	formatNumber = 2 // 1: before the store had a log of its own
	digestSize   = 32

	prefixNode   = "n/"
	prefixRecord = "r/"
	prefixIndex  = "i/"
	prefixEvent  = "e/"
)

var (
	keyFormat = []byte("f")
	keyHead   = []byte("h")
	keyLost   = []byte("l")
	keyPlace  = []byte("m")
	keyFolder = []byte("w")
)

func nodeKey(c cid.Cid) []byte { return append([]byte(prefixNode), digestOf(c)...) }

func recordKey(path string) []byte { return []byte(prefixRecord + path) }

func indexKey(c cid.Cid, path string) []byte {
	key := append([]byte(prefixIndex), digestOf(c)...)
	return append(key, path...)
}

func eventKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefixEvent), seq)
}

// after is the first key that doesn't begin with prefix.
func after(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// CIDOf is the CID of a DAG-CBOR block: CIDv1, dag-cbor, sha2-256.
func CIDOf(block []byte) cid.Cid {
	digest := sha256.Sum256(block)
	return cidOfDigest(digest[:])
}

// digestOf gives the 32 bytes that follow the multihash's code and length.
func digestOf(c cid.Cid) []byte { return c.Hash()[2:] }

func cidOfDigest(digest []byte) cid.Cid {
	hash, err := multihash.Encode(digest, multihash.SHA2_256)
	if err != nil {
		panic(err) // only for an unknown hash
	}
	return cid.NewCidV1(cid.DagCBOR, hash)
}

// ours reports whether c is of the kind that a repository's blocks have.
func ours(c cid.Cid) bool {
	if !c.Defined() {
		return false
	}
	p := c.Prefix()
	return p.Version == 1 && p.Codec == cid.DagCBOR && p.MhType == multihash.SHA2_256 && p.MhLength == digestSize
}

var errDamaged = errors.New("the repository is damaged: stop the server, then `tidings hold verify` says how, and `tidings hold repair` mends what it can")

func splitRecord(val []byte) (cid.Cid, []byte, error) {
	if len(val) < digestSize {
		return cid.Undef, nil, errDamaged
	}
	return cidOfDigest(val[:digestSize]), val[digestSize:], nil
}

// soundRecord is splitRecord for bytes that go out: only as what they are.
func soundRecord(path string, val []byte) (cid.Cid, []byte, error) {
	c, record, err := splitRecord(val)
	if err == nil && sha256.Sum256(record) != [digestSize]byte(val) {
		err = errDamaged
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("record %s: %w", path, err)
	}
	return c, record, nil
}

func joinPath(collection, rkey string) string { return collection + "/" + rkey }

func splitPath(path string) (collection, rkey string) {
	collection, rkey, _ = strings.Cut(path, "/")
	return collection, rkey
}
