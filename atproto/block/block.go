// Package block identifies the blocks of an AT Protocol repository. Their CIDs
// are version 1 with SHA-256: of DAG-CBOR for commits, tree nodes and records,
// and of raw bytes for blobs. Since nothing else varies, the 32 bytes of the
// digest stand for a CID in keys and in the parser of tree nodes.
package block

import (
	"crypto/sha256"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Block is encoded DAG-CBOR with its CID.
type Block struct {
	CID  cid.Cid
	Data []byte
}

// DigestSize is the size of a SHA-256 digest in bytes.
const DigestSize = sha256.Size

// Digest is the SHA-256 digest of a block or a blob.
type Digest [DigestSize]byte

// Prefix precedes the digest in the binary form of a DAG-CBOR block's CID:
// CIDv1, dag-cbor, sha2-256, 32 bytes.
const Prefix = "\x01\x71\x12\x20"

// CIDOf returns the CID of a DAG-CBOR block.
func CIDOf(data []byte) cid.Cid {
	digest := sha256.Sum256(data)
	return CID(digest[:])
}

// CID returns the CID of the DAG-CBOR block with this digest.
func CID(digest []byte) cid.Cid { return cid.NewCidV1(cid.DagCBOR, multihashOf(digest)) }

// BlobCID returns the CID of the blob with this digest.
func (d Digest) BlobCID() cid.Cid { return cid.NewCidV1(cid.Raw, multihashOf(d[:])) }

func multihashOf(digest []byte) multihash.Multihash {
	hash, err := multihash.Encode(digest, multihash.SHA2_256)
	if err != nil {
		panic(err) // only for an unknown hash function
	}
	return hash
}

// DigestOf returns the digest of a CID for which IsCBOR or BlobDigest holds.
func DigestOf(c cid.Cid) []byte { return c.Hash()[2:] }

// IsCBOR reports whether c is the CID of a DAG-CBOR block under SHA-256.
func IsCBOR(c cid.Cid) bool { return is(c, cid.DagCBOR) }

// BlobDigest returns the digest of a blob's CID. ok is false for every other CID.
func BlobDigest(c cid.Cid) (d Digest, ok bool) {
	if !is(c, cid.Raw) {
		return d, false
	}
	return Digest(DigestOf(c)), true
}

func is(c cid.Cid, codec uint64) bool {
	if !c.Defined() {
		return false
	}
	p := c.Prefix()
	return p.Version == 1 && p.Codec == codec && p.MhType == multihash.SHA2_256 && p.MhLength == DigestSize
}
