package notifier

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// The state has a few rows for each push: the push itself, and what each sink did
// for it. They are written independently, in any order, and joined when they are
// read.
//
//	state.Pushes <sequence number>/e   pushRow, by the counter
//	state.Pushes <sequence number>/r   recordsRow, by the records sink
//	state.Pushes <sequence number>/a   announceRow, by the announce sink
//	state.Pushes <sequence number>/d   description, by runDescriber

// A rowPart is the last byte of a row's key.
type rowPart byte

const (
	pushPart        rowPart = 'e'
	recordsPart     rowPart = 'r'
	announcePart    rowPart = 'a'
	descriptionPart rowPart = 'd'
)

// Rows of the newest keptPushes pushes are kept, and up to pruneEvery more.
const (
	keptPushes = 10_000
	pruneEvery = 1_000
)

// A pushRow is a push as its event describes it.
type pushRow struct {
	seq        uint64
	ID         string     `json:"id"`
	Time       time.Time  `json:"time"`
	Repository string     `json:"repository"` // as Event.Name returns it
	Tags       []string   `json:"tags"`       // one, or none
	Digest     string     `json:"digest"`
	Kind       event.Kind `json:"kind"`
	Size       int64      `json:"size"` // as the manifest declares it; 0: not known
	Platforms  []string   `json:"platforms"`
	Layers     int        `json:"layers"`
}

// A recordsRow is what the records sink did for a push.
type recordsRow struct {
	Created int    `json:"created"`          // layer records
	Reason  string `json:"reason,omitempty"` // why there are fewer records than layers
}

// An announceRow is what the announce sink did for a push.
type announceRow struct {
	PostURI string `json:"postUri,omitempty"` // at://…; also of a post that the push's tag was added to
	Before  bool   `json:"before,omitempty"`  // the post is that of an earlier push of the digest
	Reason  string `json:"reason,omitempty"`  // why there is no post of its own
}

// newPushRow is the row of a push.
func newPushRow(e event.Sequenced) pushRow {
	r := pushRow{
		seq: e.Seq, ID: e.ID(), Time: e.Time, Repository: e.Name(), Digest: e.ManifestDigest, Kind: e.Kind,
		Size: event.SizeOf(&e.Manifest), Layers: len(e.Manifest.Layers), Platforms: event.PlatformsOf(&e.Manifest), Tags: []string{},
	}
	if e.Tag != "" {
		r.Tags = []string{e.Tag}
	}
	return r
}

// push is the row as the API shows it, without what the other rows add.
func (r *pushRow) push() stats.Push {
	return stats.Push{
		ID: r.ID, Time: r.Time, Repository: r.Repository, Tags: r.Tags, Digest: r.Digest, Kind: string(r.Kind),
		Size: r.Size, Platforms: r.Platforms, Layers: r.Layers,
	}
}

func rowKey(seq uint64, part rowPart) []byte {
	return state.SeqKey(state.Pushes, seq, "/"+string(rune(part)))
}

// parseRowKey is the inverse of rowKey.
func parseRowKey(key []byte) (seq uint64, part rowPart) {
	return binary.BigEndian.Uint64(key[len(state.Pushes):]), rowPart(key[len(key)-1])
}

func putRow(b *state.Batch, seq uint64, part rowPart, row any) error {
	val, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode row of a push: %w", err)
	}
	b.Set(rowKey(seq, part), val)
	return nil
}

// getRow reads a row; false if there is none.
func getRow(db state.Store, seq uint64, part rowPart, row any) (bool, error) {
	val, err := db.Get(rowKey(seq, part))
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(val, row)
	}
	if err != nil {
		return false, fmt.Errorf("read row of a push: %w", err)
	}
	return true, nil
}

// putPushRows adds the rows of pushes that are counted, in ascending order, and now
// and then deletes the oldest.
func putPushRows(b *state.Batch, rows []pushRow) error {
	for _, r := range rows {
		if err := putRow(b, r.seq, pushPart, &r); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		return nil
	}
	first, last := rows[0].seq, rows[len(rows)-1].seq
	crossed := first/pruneEvery != last/pruneEvery || first%pruneEvery == 0
	if crossed && last > keptPushes {
		b.DeleteRange(state.Range{From: rowKey(0, 0), To: rowKey(last-keptPushes, 0)})
	}
	return nil
}

// eachPush calls visit with the push rows of a range of keys.
func eachPush(db state.Store, r state.Range, visit func(*pushRow) error) error {
	return db.Scan(r, func(key, val []byte) error {
		seq, part := parseRowKey(key)
		if part != pushPart {
			return nil
		}
		row := pushRow{seq: seq}
		if err := json.Unmarshal(val, &row); err != nil {
			return fmt.Errorf("read pushes: %w", err)
		}
		return visit(&row)
	})
}
