package frame

import (
	"bytes"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Commit is the body of a #commit by Sync 1.1: with PrevData and the Prev of each
// operation a consumer can invert it and compare the result with the tree it
// knows.
type Commit struct {
	DID      string
	Seq      uint64 // sequence number, which is the time of the event in microseconds
	Commit   cid.Cid
	Rev      string
	Since    string  // rev of the commit before it; empty: this is the first
	PrevData cid.Cid // root of the tree before it; ignored for the first
	Ops      []Op
	Blocks   []byte // a CAR file: the commit, the changed nodes and the new records
}

// Op is the change of one record.
type Op struct {
	Action    string  // create, update or delete
	Path      string  // collection/rkey
	CID, Prev cid.Cid // after and before it; Undef: no record
}

// Encode encodes the event.
func (c Commit) Encode() ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Commit{
		Blobs:  []lexutil.LexLink{},
		Blocks: c.Blocks,
		Commit: lexutil.LexLink(c.Commit),
		Ops:    make([]*comatproto.SyncSubscribeRepos_RepoOp, len(c.Ops)),
		Repo:   c.DID,
		Rev:    c.Rev,
		Seq:    int64(c.Seq),
		Time:   frameTime(c.Seq),
	}
	if c.Since != "" {
		msg.Since = &c.Since
		msg.PrevData = link(c.PrevData)
	}
	size := len(c.Blocks) + 512
	for i, op := range c.Ops {
		size += len(op.Path) + 128
		msg.Ops[i] = &comatproto.SyncSubscribeRepos_RepoOp{
			Action: op.Action, Path: op.Path, Cid: link(op.CID), Prev: link(op.Prev),
		}
	}
	return encode(KindCommit, &msg, size)
}

// Event is an event other than a #commit.
type Event struct {
	DID string
	Seq uint64 // sequence number, which is the time of the event in microseconds
}

// Sync encodes a #sync: the head is this commit with this rev. It replaces any
// state that the consumer has. block is the signed commit.
func (e Event) Sync(commit cid.Cid, rev string, block []byte) ([]byte, error) {
	var blocks bytes.Buffer // writing to it can't fail
	car.WriteHeader(&blocks, commit)
	car.WriteBlock(&blocks, commit, block)
	return encode(KindSync, &comatproto.SyncSubscribeRepos_Sync{
		Blocks: blocks.Bytes(), Did: e.DID, Rev: rev, Seq: int64(e.Seq), Time: frameTime(e.Seq),
	}, blocks.Len()+512)
}

// Identity encodes an #identity; handle may be empty.
func (e Event) Identity(handle string) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Identity{Did: e.DID, Seq: int64(e.Seq), Time: frameTime(e.Seq)}
	if handle != "" {
		msg.Handle = &handle
	}
	return encode(KindIdentity, &msg, 0)
}

// Account encodes an #account. status is the reason why the account is not
// active; empty: it is active.
func (e Event) Account(status string) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Account{Active: status == "", Did: e.DID, Seq: int64(e.Seq), Time: frameTime(e.Seq)}
	if status != "" {
		msg.Status = &status
	}
	return encode(KindAccount, &msg, 0)
}

func link(c cid.Cid) *lexutil.LexLink {
	if !c.Defined() {
		return nil
	}
	l := lexutil.LexLink(c)
	return &l
}

func frameTime(seq uint64) string { return lexicon.Datetime(time.UnixMicro(int64(seq))) }
