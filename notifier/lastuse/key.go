package lastuse

import "crypto/sha256"

// A Key identifies a tag or a manifest within its repository: the kind, and 8 bytes of a
// hash of the name. Two names with the same key share their last use, so that at worst one
// of them is kept for longer.
type Key [9]byte

const (
	tagKind    = 't'
	digestKind = 'd'
)

// OfTag returns the key of a tag.
func OfTag(tag string) Key { return keyOf(tagKind, tag) }

// OfDigest returns the key of a manifest.
func OfDigest(digest string) Key { return keyOf(digestKind, digest) }

func keyOf(kind byte, name string) Key {
	sum := sha256.Sum256([]byte(name))
	k := Key{kind}
	copy(k[1:], sum[:])
	return k
}

// rowKey is the key of a row: 8 bytes of a hash of the repository, which has its rows next
// to each other, and a Key.
type rowKey [8 + len(Key{})]byte

func rowKeyOf(repository [8]byte, k Key) (key rowKey) {
	copy(key[:], repository[:])
	copy(key[8:], k[:])
	return key
}

func hashRepository(name string) (hash [8]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(hash[:], sum[:])
	return hash
}

// An ID identifies a tag or a manifest of the registry: 8 bytes of a hash of the repository,
// and a Key.
type ID rowKey

// IDOf returns the ID of a tag or manifest of a repository.
func IDOf(repository string, k Key) ID { return ID(rowKeyOf(hashRepository(repository), k)) }

// Repository returns the hash of the repository.
func (id ID) Repository() [8]byte { return [8]byte(id[:8]) }

// Key returns the key within the repository.
func (id ID) Key() Key { return Key(id[8:]) }
