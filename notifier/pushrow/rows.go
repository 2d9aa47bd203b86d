package pushrow

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// The state has a few rows for each push: the push itself, and what each sink did
// for it. They are written independently, in any order, and joined when they are
// read.
//
//	state.Pushes <sequence number>/e   Push, by the counter
//	state.Pushes <sequence number>/r   Records, by the records sink
//	state.Pushes <sequence number>/a   Announce, by the announce sink
//	state.Pushes <sequence number>/n   Remote, by the remote sink
//	state.Pushes <sequence number>/d   describe.Description, by the describer of package notifier

// A Part is the last byte of a row's key.
type Part byte

const (
	PushPart        Part = 'e'
	RecordsPart     Part = 'r'
	AnnouncePart    Part = 'a'
	RemotePart      Part = 'n'
	DescriptionPart Part = 'd'
)

// Rows of the newest Kept pushes are kept, and up to PruneEvery more.
const (
	Kept       = 10_000
	PruneEvery = 1_000
)

// A Push is a push as its event describes it.
type Push struct {
	Seq        uint64     `json:"-"`
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

// Records is what the records sink did for a push.
type Records struct {
	Created int    `json:"created"`          // layer records
	Reason  string `json:"reason,omitempty"` // why there are fewer records than layers
}

// Announce is what the announce sink did for a push.
type Announce struct {
	PostURI string `json:"postUri,omitempty"` // at://…; also of a post that the push's tag was added to
	Before  bool   `json:"before,omitempty"`  // the post is that of an earlier push of the digest
	Joined  bool   `json:"joined,omitempty"`  // the post is that of a newer version, or a summary
	Waiting bool   `json:"waiting,omitempty"` // it waits to be announced; Reason says for what
	Reason  string `json:"reason,omitempty"`  // why there is no post of its own

	// Retried is the sequence number of a retry of the push whose row has the result; 0: none.
	Retried uint64 `json:"retried,omitempty"`
}

// GetAnnounce reads what the announce sink did for a push, or for its last retry; false if
// there is no row.
func GetAnnounce(db state.Store, seq uint64, row *Announce) (bool, error) {
	found, err := Get(db, seq, AnnouncePart, row)
	if !found || err != nil || row.Retried == 0 {
		return found, err
	}
	seq, *row = row.Retried, Announce{}
	return Get(db, seq, AnnouncePart, row)
}

// Remote is what the hold of remote has answered for a push.
type Remote struct {
	Answer *lexicon.NotifyManifestOutput `json:"answer,omitempty"` // nil: there is none
	Reason string                        `json:"reason,omitempty"` // why there is no answer, or what is special about it
}

// New is the row of a push.
func New(e event.Sequenced) Push {
	r := Push{
		Seq: e.Seq, ID: e.ID(), Time: e.Time, Repository: e.Name(), Digest: e.ManifestDigest, Kind: e.Kind,
		Size: event.SizeOf(&e.Manifest), Layers: len(e.Manifest.Layers), Platforms: event.PlatformsOf(&e.Manifest), Tags: []string{},
	}
	if e.Tag != "" {
		r.Tags = []string{e.Tag}
	}
	return r
}

// Push is the row as the API shows it, without what the other rows add.
func (r *Push) Push() stats.Push {
	return stats.Push{
		ID: r.ID, Time: r.Time, Repository: r.Repository, Tags: r.Tags, Digest: r.Digest, Kind: string(r.Kind),
		Size: r.Size, Platforms: r.Platforms, Layers: r.Layers,
	}
}

func Key(seq uint64, part Part) []byte {
	return state.SeqKey(state.Pushes, seq, "/"+string(rune(part)))
}

// ParseKey is the inverse of Key.
func ParseKey(key []byte) (seq uint64, part Part) {
	return binary.BigEndian.Uint64(key[len(state.Pushes):]), Part(key[len(key)-1])
}

func Put(b *state.Batch, seq uint64, part Part, row any) error {
	val, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode row of a push: %w", err)
	}
	b.Set(Key(seq, part), val)
	return nil
}

// Get reads a row; false if there is none.
func Get(db state.Store, seq uint64, part Part, row any) (bool, error) {
	val, err := db.Get(Key(seq, part))
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

// PutAll adds the rows of pushes that are counted, in ascending order, and now
// and then deletes the oldest.
func PutAll(b *state.Batch, rows []Push) error {
	for _, r := range rows {
		if err := Put(b, r.Seq, PushPart, &r); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		return nil
	}
	first, last := rows[0].Seq, rows[len(rows)-1].Seq
	crossed := first/PruneEvery != last/PruneEvery || first%PruneEvery == 0
	if crossed && last > Kept {
		b.DeleteRange(state.Range{From: Key(0, 0), To: Key(last-Kept, 0)})
	}
	return nil
}

// Each calls visit with the push rows of a range of keys.
func Each(db state.Store, r state.Range, visit func(*Push) error) error {
	return db.Scan(r, func(key, val []byte) error {
		seq, part := ParseKey(key)
		if part != PushPart {
			return nil
		}
		row := Push{Seq: seq}
		if err := json.Unmarshal(val, &row); err != nil {
			return fmt.Errorf("read pushes: %w", err)
		}
		return visit(&row)
	})
}
