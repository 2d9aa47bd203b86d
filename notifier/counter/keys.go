package counter

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The names of all keys, in the store and in Redis, are made here.
//
// Repositories are spread over buckets. A bucket is one slot of a Redis
// Cluster, so whatever a shard loses, it loses together with the generation
// that tells us so.
const buckets = 16

const hexDigits = "0123456789abcdef"

func bucketOf(repository string) byte {
	h := uint32(2166136261) // FNV-1a
	for i := range len(repository) {
		h = (h ^ uint32(repository[i])) * 16777619
	}
	return hexDigits[(h>>16^h)%buckets]
}

// Keys in the store:
//
//	c/id                                  id of the store, random
//	c/c/JOURNAL 0 STREAM                  cursor
//	c/d/ROW                               this row waits to be sent to Redis
//	c/g/REPOSITORY 0 DIGEST 0 TAG         a push that was seen, for retags
//	c/k/GENERATION CHILD                  child of an index
//	c/n/ROW                               numbers
//	c/p/BUCKET                            generation of the bucket in Redis
//
//	ROW: BUCKET REPOSITORY 0 KIND NAME 0 JOURNAL
const (
	idKey        = "c/id"
	cursorPrefix = "c/c/"
	dirtyPrefix  = "c/d/"
	pushedPrefix = "c/g/"
	childPrefix  = "c/k/"
	rowPrefix    = "c/n/"
	genPrefix    = "c/p/"
)

type kind byte

const (
	totals kind = 'a' // without a name
	perDay kind = 'd' // 2006-01-02
	perTag kind = 't'
)

// rowID says what a row of numbers is about.
type rowID struct {
	repository string
	kind       kind
	name       string
	journal    string
}

func (r rowID) suffix() string {
	return string(bucketOf(r.repository)) + r.repository + "\x00" + string(r.kind) + r.name + "\x00" + r.journal
}

// parseRow is the inverse of suffix.
func parseRow(suffix string) (rowID, error) {
	bad := func() (rowID, error) { return rowID{}, fmt.Errorf("damaged key %q", suffix) }
	if suffix == "" {
		return bad()
	}
	repository, rest, ok := strings.Cut(suffix[1:], "\x00")
	if !ok || rest == "" {
		return bad()
	}
	name, journal, ok := strings.Cut(rest[1:], "\x00")
	if !ok {
		return bad()
	}
	return rowID{repository, kind(rest[0]), name, journal}, nil
}

func cursorKey(journal string, stream uint8) []byte {
	return append([]byte(cursorPrefix+journal+"\x00"), stream)
}

func pushedKey(repository, digest, tag string) []byte {
	return []byte(pushedPrefix + repository + "\x00" + digest + "\x00" + tag)
}

func childStoreKey(generation uint32, k ChildKey) []byte {
	b := binary.BigEndian.AppendUint32([]byte(childPrefix), generation)
	return binary.BigEndian.AppendUint64(b, uint64(k))
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

// Keys in Redis.

const childrenKey = "tidings:children"

func generationKey(bucket byte) string { return "tidings:{" + string(bucket) + "}:generation" }

func repositoriesKey(bucket byte) string { return "tidings:{" + string(bucket) + "}:repositories" }

func repositoryKey(name string) string {
	return "tidings:{" + string(bucketOf(name)) + "}:repository:" + name
}

// Fields of a repository's hash: these, and for each journal what it gave to
// them (from/JOURNAL/FIELD), and whether all of it is there (whole/JOURNAL).

func (r rowID) field(c Class) string {
	switch r.kind {
	case perDay:
		return dayField(r.name, c)
	case perTag:
		return "tag/" + r.name + "/" + string(c)
	}
	return totalField(c)
}

func totalField(c Class) string { return "total/" + string(c) }

func dayField(day string, c Class) string { return "day/" + day + "/" + string(c) }

const (
	lastPullField = "last/pull" // unix milliseconds
	lastPushField = "last/push"
)
