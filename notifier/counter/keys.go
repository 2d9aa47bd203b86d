package counter

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// All keys in the store are built in this file, except for those of package pushed:
//
//	c/c/JOURNAL 0 STREAM                  cursor
//	c/h/DIGEST TAG                        pushed, both hashed: the day of the push
//	c/k/…                                 index entries (classify.Store)
//	c/o                                   this folder's registration in Redis
//	c/r/REPOSITORY 0 KIND NAME 0 EPOCH    base row: counts that Redis has; all counts if there is no Redis
//	c/s/REPOSITORY 0 EPOCH POSITION       free position: that of a tag that was dropped
//	c/t                                   state of the clock (clock.go)
//	c/v/TAG                               latest (package pushed), hashed: day of the last push, DIGEST
//	c/u/REPOSITORY 0 KIND NAME 0 RUN      pending row: counts that Redis does not have yet
//	c/w/…                                 last use of tags and manifests (lastuse.Table)
//	c/x                                   since when the last use is known (lastuse.go)
//	c/y                                   last mark of the uses in Redis (shareuses.go)
//
// EPOCH is the number of a registry id of this folder. RUN is "f" for live or "r" for
// replayed facts, and the id of the process that counted them.
const (
	registrationKey = "c/o"
	clockKey        = "c/t"
	cursorPrefix    = "c/c/"
	indexPrefix     = "c/k/"
	basePrefix      = "c/r/"
	freePrefix      = "c/s/"
	pendingPrefix   = "c/u/"
	lastUsePrefix   = "c/w/"
	lastUseKey      = "c/x"
	sharedUsesKey   = "c/y"
)

// rowKey is the key of a row without prefix and end.
func rowKey(id counts.ID) string { return id.Repository + "\x00" + string(id.Kind) + id.Name + "\x00" }

// parseRow parses the key of a row, without its prefix.
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

// epoch is the number of a registry id of this folder, from 1. Rows of the epoch elsewhere
// are counted in Redis under the registry ids of other folders.
type epoch uint64

const elsewhere epoch = 0

func (e epoch) end() string { return string(binary.AppendUvarint(nil, uint64(e))) }

func baseKey(id counts.ID, e epoch) []byte { return []byte(basePrefix + rowKey(id) + e.end()) }

func pendingKey(id counts.ID, run string) []byte { return []byte(pendingPrefix + rowKey(id) + run) }

// rowStart is the prefix of the keys of a repository's rows of a kind; 0 stands for all
// kinds.
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
