package repo

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Action is what a write does to a record.
type Action string

const (
	Create Action = "create" // the record must not exist
	Update Action = "update" // the record must exist
	Delete Action = "delete" // the record must exist
)

// Write is one change to one record.
type Write struct {
	Action     Action
	Collection string // NSID
	RKey       string // record key, chosen by the caller
	Record     []byte // canonical DAG-CBOR, at most 1 MiB; nil for Delete
}

// Config describes a repository. Dir, DID and Key are required.
type Config struct {
	Dir string
	DID string
	Key atcrypto.PrivateKey

	Handle  string           // goes into the #identity event of a new repository; may be empty
	Now     func() time.Time // nil: time.Now
	Reserve uint64           // bytes of free disk below which writes are refused; 0: 1 GiB

	CacheSize    int64         // bytes of Pebble's block cache; 0: 8 MiB
	EventsMaxAge time.Duration // how long firehose frames are kept; 0: 72 h
	EventsLimit  int64         // bytes of firehose frames kept; 0: 1 GiB

	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

// Result is what an Apply did.
type Result struct {
	Commit cid.Cid
	Rev    string
	CIDs   []cid.Cid // one per write; cid.Undef for Delete
}

// Head is the durable state of the repository.
type Head struct {
	DID    string
	Rev    string  // TID
	Commit cid.Cid // the signed commit
	Data   cid.Cid // the root of its tree
	Seq    uint64  // sequence number of the last firehose event
}

// Record is one record of a List.
type Record struct {
	RKey  string
	CID   cid.Cid
	Value []byte // DAG-CBOR
}

// Event is one finished firehose frame.
type Event struct {
	Seq   uint64 // also the unix microseconds at which it was made, or a little later
	Frame []byte // header and body, ready to be sent as one WebSocket message
}

// Repo is an open repository. Its methods are safe to call together.
type Repo struct{}

var errUnbuilt = errors.New("not available yet")

// Init creates the repository in cfg.Dir.
func Init(cfg Config, first []Write) (*Repo, error) { return nil, errUnbuilt }

// Open opens the repository in cfg.Dir.
func Open(cfg Config) (*Repo, error) { return nil, errUnbuilt }

// Exists reports whether dir holds a repository.
func Exists(dir string) bool { return false }

// Apply writes one signed commit and returns once it is durable.
func (r *Repo) Apply(ctx context.Context, writes []Write, swap *cid.Cid) (Result, error) {
	return Result{}, errUnbuilt
}

// Head returns the durable head.
func (r *Repo) Head() Head { return Head{} }

// Get returns one record. ErrNotFound.
func (r *Repo) Get(collection, rkey string) (cid.Cid, []byte, error) {
	return cid.Undef, nil, errUnbuilt
}

// List returns records of a collection, newest key first as listRecords does;
// reverse gives the oldest key first.
func (r *Repo) List(collection, cursor string, limit int, reverse bool) ([]Record, string, error) {
	return nil, "", errUnbuilt
}

// Collections returns the NSIDs that have records, sorted.
func (r *Repo) Collections() ([]string, error) { return nil, errUnbuilt }

// Block returns the bytes of a commit, node or record of the current tree. ErrNotFound.
func (r *Repo) Block(c cid.Cid) ([]byte, error) { return nil, errUnbuilt }

// Export writes the repository as CAR v1.
func (r *Repo) Export(ctx context.Context, w io.Writer) error { return errUnbuilt }

// Events returns up to limit events with a sequence number greater than after.
func (r *Repo) Events(after uint64, limit int) ([]Event, error) { return nil, errUnbuilt }

// Health returns what keeps the repository from working, nil if nothing does.
func (r *Repo) Health() error { return errUnbuilt }

// Close closes the repository. It may be called twice.
func (r *Repo) Close() error { return nil }

// CIDOf is the CID of a DAG-CBOR block: CIDv1, dag-cbor, sha2-256.
func CIDOf(block []byte) cid.Cid {
	hash, err := multihash.Sum(block, multihash.SHA2_256, -1)
	if err != nil {
		panic(err) // only for an unknown hash or length
	}
	return cid.NewCidV1(cid.DagCBOR, hash)
}
