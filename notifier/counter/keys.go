package counter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// All key names, in the store and in Redis, are built in this file.
//
// Keys in the store:
//
//	c/c/JOURNAL 0 STREAM                  cursor
//	c/h/DIGEST TAG                        pushed (retag.go), both hashed: the day of the push
//	c/k/…                                 what is known of indexes and artifacts (classify.Store)
//	c/o                                   this folder's registration in Redis
//	c/r/REPOSITORY 0 KIND NAME 0 EPOCH    base row: numbers that Redis has; all numbers if there is no Redis
//	c/s/REPOSITORY 0 EPOCH POSITION       a position that no tag uses any more
//	c/t                                   state of the clock (clock.go)
//	c/v/TAG                               latest (retag.go), hashed: day of the last push, DIGEST
//	c/u/REPOSITORY 0 KIND NAME 0 RUN      pending row: numbers that Redis does not have yet
//
// EPOCH numbers the registry ids that this folder has had. RUN is "f" or "r", for
// live or replayed facts, and the id of the process that counted them.
const (
	registrationKey = "c/o"
	clockKey        = "c/t"
	cursorPrefix    = "c/c/"
	pushedPrefix    = "c/h/"
	indexPrefix     = "c/k/"
	basePrefix      = "c/r/"
	freePrefix      = "c/s/"
	pendingPrefix   = "c/u/"
	latestPrefix    = "c/v/"
)

// rowKey is the key of a row in the store without prefix and end.
func rowKey(id counts.ID) string { return id.Repository + "\x00" + string(id.Kind) + id.Name + "\x00" }

// parseRow splits the key of a row, given without its prefix.
func parseRow(key string) (id counts.ID, end string, err error) {
	repository, rest, ok := strings.Cut(key, "\x00")
	if ok && rest != "" {
		var name string
		if name, end, ok = strings.Cut(rest[1:], "\x00"); ok {
			return counts.ID{Repository: repository, Kind: counts.Kind(rest[0]), Name: name}, end, nil
		}
	}
	return counts.ID{}, "", fmt.Errorf("damaged key %q", key)
}

// epoch numbers this folder's registry ids from 1. Rows of the epoch elsewhere are
// counted in Redis under ids of other folders.
type epoch uint64

const elsewhere epoch = 0

func (e epoch) end() string { return string(binary.AppendUvarint(nil, uint64(e))) }

func baseKey(id counts.ID, e epoch) []byte { return []byte(basePrefix + rowKey(id) + e.end()) }

func pendingKey(id counts.ID, run string) []byte { return []byte(pendingPrefix + rowKey(id) + run) }

// rowStart is the common start of the keys of a repository's rows; kind 0 stands for
// all kinds.
func rowStart(prefix, repository string, k counts.Kind) []byte {
	b := []byte(prefix + repository + "\x00")
	if k != 0 {
		b = append(b, byte(k))
	}
	return b
}

func freeStart(repository string, e epoch) []byte {
	return []byte(freePrefix + repository + "\x00" + e.end())
}

func freeKey(repository string, e epoch, position uint64) []byte {
	return binary.BigEndian.AppendUint64(freeStart(repository, e), position)
}

func cursorKey(journal string, stream uint8) []byte {
	return append([]byte(cursorPrefix+journal+"\x00"), stream)
}

// pushedKey has 12 bytes of hash for a repository, a digest and a tag, which are only
// compared.
func pushedKey(repository, digest, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + digest))
	return pushedKeyOf(of[:8], tag)
}

// pushedKeyOf is pushedKey with the hash of repository and digest.
func pushedKeyOf(of []byte, tag string) []byte {
	to := sha256.Sum256([]byte(tag))
	return append(append([]byte(pushedPrefix), of...), to[:4]...)
}

func latestKey(repository, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + tag))
	return append([]byte(latestPrefix), of[:8]...)
}

// keyspace builds the keys of one installation in Redis. All have the same hash tag
// and so the same slot of a cluster: what Redis loses, it loses together.
//
//	{tidings:NAME}:ids           hash: registry id -> record
//	{tidings:NAME}:runs          hash: run of a process -> registry id that has what it counted
//	{tidings:NAME}:children      stream of what registries learn from each other: indexes and tags
//	{tidings:NAME}:ID:n:SHARD    hash: repository -> totals
//	{tidings:NAME}:ID:d:REPOSITORY        hash: day -> numbers
//	{tidings:NAME}:ID:t:REPOSITORY:HASH   hash: tag -> numbers; HASH is (position-1)/100
type keyspace string

var validName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidateName returns an error if a Config.Name is invalid. An empty name is
// valid and stands for "default".
func ValidateName(name string) error {
	if name != "" && !validName.MatchString(name) {
		return fmt.Errorf("%q is not a valid name; use 1 to 64 letters, digits, dots, underscores and hyphens", name)
	}
	return nil
}

func newKeyspace(name string) keyspace {
	if name == "" {
		name = "default"
	}
	return keyspace("{tidings:" + name + "}:")
}

const (
	shards       = 64  // hashes that the totals are spread over
	tagsInHash   = 100 // few enough for the compact encoding of small hashes
	repositories = "n:"
)

func (k keyspace) ids() string      { return string(k) + "ids" }
func (k keyspace) runs() string     { return string(k) + "runs" }
func (k keyspace) children() string { return string(k) + "children" }

func (k keyspace) shard(id string, shard int) string {
	return string(k) + id + ":" + repositories + strconv.Itoa(shard)
}

func (k keyspace) totals(id, repository string) string { return k.shard(id, shardOf(repository)) }

func (k keyspace) days(id, repository string) string { return string(k) + id + ":d:" + repository }

func (k keyspace) tags(id, repository string, hash uint64) string {
	return string(k) + id + ":t:" + repository + ":" + strconv.FormatUint(hash, 10)
}

func shardOf(repository string) int {
	h := uint32(2166136261) // FNV-1a
	for i := range len(repository) {
		h = (h ^ uint32(repository[i])) * 16777619
	}
	return int((h>>16 ^ h) % shards)
}
