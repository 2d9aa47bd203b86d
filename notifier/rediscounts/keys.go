package rediscounts

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// Keys builds the keys of one installation. All have the same hash tag, and so the same
// slot of a cluster: a failover that loses writes affects all of them.
//
//	{tidings:NAME}:ids           hash: registry id -> record
//	{tidings:NAME}:runs          hash: run of a process -> registry id under which its counts are
//	{tidings:NAME}:children      stream between the registries (stream.go)
//	{tidings:NAME}:ID:n:SHARD    hash: repository -> totals
//	{tidings:NAME}:ID:d:REPOSITORY        hash: day -> counts
//	{tidings:NAME}:ID:t:REPOSITORY:HASH   hash: tag -> counts; HASH is (position-1)/100
//	{tidings:NAME}:uses                   hash: registry id -> mark of its last uses (uses.go)
//	{tidings:NAME}:uses:REPOSITORY:SHARD  hash: tag or manifest -> last use; all three hashed
type Keys string

var validName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidateName returns an error if the name of an installation is invalid. An empty name
// is valid and stands for "default".
func ValidateName(name string) error {
	if name != "" && !validName.MatchString(name) {
		return fmt.Errorf("%q is not a valid name; use 1 to 64 letters, digits, dots, underscores and hyphens", name)
	}
	return nil
}

// NewKeys returns the keys of the installation with a name.
func NewKeys(name string) Keys {
	if name == "" {
		name = "default"
	}
	return Keys("{tidings:" + name + "}:")
}

const (
	Shards     = 64  // hashes that the totals of a registry id are spread over
	TagsInHash = 100 // few enough for the compact encoding of small hashes
)

// IDs is the hash of the records, by registry id.
func (k Keys) IDs() string { return string(k) + "ids" }

// Runs is the hash of the registry ids of runs.
func (k Keys) Runs() string { return string(k) + "runs" }

// Stream is the stream between the registries.
func (k Keys) Stream() string { return string(k) + "children" }

// UsesState is the hash of the epoch and the marks of the last uses.
func (k Keys) UsesState() string { return string(k) + "uses" }

// useShards is the number of hashes that the last uses in a repository are spread over: few,
// since an almost empty hash takes 100 bytes, and enough for most repositories to have only
// small ones, which are compact.
const useShards = 16

func (k Keys) usesOf(id lastuse.ID) string {
	return k.uses(id.Repository(), int(id.Key()[1]%useShards))
}

func (k Keys) uses(repository [8]byte, shard int) string {
	return k.UsesState() + ":" + hex.EncodeToString(repository[:]) + ":" + strconv.Itoa(shard)
}

// Shard is one of the hashes of totals.
func (k Keys) Shard(id string, shard int) string {
	return string(k) + id + ":n:" + strconv.Itoa(shard)
}

// Totals is the hash that has the totals of a repository.
func (k Keys) Totals(id, repository string) string { return k.Shard(id, ShardOf(repository)) }

// Days is the hash of a repository's days.
func (k Keys) Days(id, repository string) string { return string(k) + id + ":d:" + repository }

// Tags is one of the hashes of a repository's tags.
func (k Keys) Tags(id, repository string, hash uint64) string {
	return string(k) + id + ":t:" + repository + ":" + strconv.FormatUint(hash, 10)
}

// Field is a field of a hash.
type Field struct{ Key, Name string }

// Field returns the field of a row under a registry id. Its key is empty for a tag without
// a position, which was never written to Redis.
func (k Keys) Field(id string, row counts.ID, position uint64) Field {
	switch row.Kind {
	case counts.PerRepository:
		return Field{k.Totals(id, row.Repository), row.Repository}
	case counts.PerDay:
		return Field{k.Days(id, row.Repository), row.Name}
	}
	if position == 0 {
		return Field{"", row.Name}
	}
	return Field{k.Tags(id, row.Repository, HashOf(position)), row.Name}
}

// HashOf returns the number of the hash that has the tag with a position.
func HashOf(position uint64) uint64 { return (position - 1) / TagsInHash }

// ShardOf returns the number of the shard that has the totals of a repository.
func ShardOf(repository string) int {
	h := uint32(2166136261) // FNV-1a
	for i := range len(repository) {
		h = (h ^ uint32(repository[i])) * 16777619
	}
	return int((h>>16 ^ h) % Shards)
}
