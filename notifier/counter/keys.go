package counter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The names of all keys, in the store and in Redis, are made here.
//
// Keys in the store:
//
//	c/c/JOURNAL 0 STREAM                  cursor
//	c/h/DIGEST TAG                        a push that was seen, both hashed, for retags: its day
//	c/k/GENERATION CHILD                  child of an index that is not known
//	c/k/GENERATION INDEX CHILD            child of an index, or an artifact
//	c/o                                   who this folder is to Redis (own)
//	c/r/REPOSITORY 0 KIND NAME 0 EPOCH    numbers that Redis has, or all if there is no Redis
//	c/s/REPOSITORY 0 EPOCH PLACE          a place of a tag that is free again
//	c/t                                   since when the clock is steady
//	c/v/TAG                               what a tag was pushed with last, hashed, for retags: its day, DIGEST
//	c/u/REPOSITORY 0 KIND NAME 0 RUN      what was counted since
//
// EPOCH numbers the ids under which this folder's numbers are in Redis; RUN is
// whether a fact was replayed and which process counted it.
const (
	registrationKey = "c/o"
	clockKey        = "c/t"
	cursorPrefix    = "c/c/"
	pushedPrefix    = "c/h/"
	childPrefix     = "c/k/"
	basePrefix      = "c/r/"
	freePrefix      = "c/s/"
	pendingPrefix   = "c/u/"
	latestPrefix    = "c/v/"
)

type kind byte

const (
	totals kind = 'a' // without a name
	perDay kind = 'd' // days since 1970, UTC
	perTag kind = 't'
)

// rowID says what a row of numbers is about.
type rowID struct {
	repository string
	kind       kind
	name       string
}

// key is the row's key in the store without its prefix and its end.
func (r rowID) key() string { return r.repository + "\x00" + string(r.kind) + r.name + "\x00" }

// parseRow takes a row's key, without its prefix, apart.
func parseRow(key string) (id rowID, end string, err error) {
	repository, rest, ok := strings.Cut(key, "\x00")
	if ok && rest != "" {
		var name string
		if name, end, ok = strings.Cut(rest[1:], "\x00"); ok {
			return rowID{repository, kind(rest[0]), name}, end, nil
		}
	}
	return rowID{}, "", fmt.Errorf("damaged key %q", key)
}

// epoch numbers this folder's ids from 1. Rows of epoch elsewhere are numbers
// that other ids have in Redis.
type epoch uint64

const elsewhere epoch = 0

func (e epoch) end() string { return string(binary.AppendUvarint(nil, uint64(e))) }

func baseKey(id rowID, e epoch) []byte { return []byte(basePrefix + id.key() + e.end()) }

func pendingKey(id rowID, run string) []byte { return []byte(pendingPrefix + id.key() + run) }

// rowStart is how the keys of a repository's rows begin; kind 0 for all kinds.
func rowStart(prefix, repository string, k kind) []byte {
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

// pushedKey hashes what is only compared: 12 bytes for a repository, a digest
// and a tag.
func pushedKey(repository, digest, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + digest))
	return pushedKeyOf(of[:8], tag)
}

// pushedKeyOf is pushedKey with the repository and digest hashed.
func pushedKeyOf(of []byte, tag string) []byte {
	to := sha256.Sum256([]byte(tag))
	return append(append([]byte(pushedPrefix), of...), to[:4]...)
}

func latestKey(repository, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + tag))
	return append([]byte(latestPrefix), of[:8]...)
}

func childStoreKey(generation uint32, l IndexEntry) []byte {
	b := binary.BigEndian.AppendUint32([]byte(childPrefix), generation)
	if l.Index != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(l.Index))
	}
	return binary.BigEndian.AppendUint64(b, uint64(l.Child))
}

// after is the end of the range of keys that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// Days are numbered, in UTC.

func dayOf(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		return 0
	}
	return s / (24 * 3600)
}

func dayName(day int64) string { return strconv.FormatInt(day, 10) }

func parseDay(name string) (int64, bool) {
	day, err := strconv.ParseInt(name, 10, 64)
	return day, err == nil
}

func dateOf(day int64) string { return time.Unix(day*24*3600, 0).UTC().Format(time.DateOnly) }

// keyspace makes the keys of one installation in Redis. All are in one slot of
// a cluster: what Redis loses, it loses together.
//
//	{tidings:NAME}:ids           hash: id -> record
//	{tidings:NAME}:runs          hash: run of a process -> the id that has what it counted
//	{tidings:NAME}:children      stream of children of indexes
//	{tidings:NAME}:ID:n:SHARD    hash: repository -> totals
//	{tidings:NAME}:ID:d:REPOSITORY        hash: day -> numbers
//	{tidings:NAME}:ID:t:REPOSITORY:PLACE  hash: tag -> numbers; PLACE counts hundreds
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
	shards       = 64  // of the names of repositories
	tagsInHash   = 100 // few enough that Redis keeps them without pointers
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
