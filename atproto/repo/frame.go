package repo

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// The frames of com.atproto.sync.subscribeRepos, by
// https://atproto.com/specs/event-stream: the header {"t": kind, "op": 1}, then
// the body, both in DAG-CBOR.

const commitKind = "#commit"

// encodeFrame encodes a frame whose body has about this size.
func encodeFrame(kind string, body cbg.CBORMarshaler, size int) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(size)
	out.Write(frameHead(kind))
	if err := body.MarshalCBOR(&out); err != nil {
		return nil, fmt.Errorf("encode %s frame: %w", kind, err)
	}
	return out.Bytes(), nil
}

func frameHead(kind string) []byte {
	head := append([]byte{0xa2, 0x61, 't', 0x60 | byte(len(kind))}, kind...)
	return append(head, 0x62, 'o', 'p', 1)
}

// DecodeFrame is the inverse of the encoding. The message is one of
// *comatproto.SyncSubscribeRepos_Commit, _Sync, _Identity and _Account.
func DecodeFrame(frame []byte) (message any, err error) {
	rest, ok := bytes.CutPrefix(frame, []byte{0xa2, 0x61, 't'})
	if !ok || len(rest) == 0 || rest[0]&0xe0 != 0x60 || len(rest) < 1+int(rest[0]&0x1f) {
		return nil, errors.New("invalid frame header")
	}
	kind := string(rest[1 : 1+int(rest[0]&0x1f)])
	body, ok := bytes.CutPrefix(frame, frameHead(kind))
	if !ok {
		return nil, errors.New("invalid frame header")
	}
	var msg cbg.CBORUnmarshaler
	switch kind {
	case commitKind:
		msg = &comatproto.SyncSubscribeRepos_Commit{}
	case string(Sync):
		msg = &comatproto.SyncSubscribeRepos_Sync{}
	case string(Identity):
		msg = &comatproto.SyncSubscribeRepos_Identity{}
	case string(Account):
		msg = &comatproto.SyncSubscribeRepos_Account{}
	default:
		return nil, fmt.Errorf("unknown event kind %q", kind)
	}
	in := bytes.NewReader(body)
	if err := msg.UnmarshalCBOR(in); err != nil {
		return nil, fmt.Errorf("invalid %s frame: %w", kind, err)
	}
	if in.Len() > 0 {
		return nil, fmt.Errorf("invalid %s frame: %d trailing bytes", kind, in.Len())
	}
	return msg, nil
}

// commitFrame returns a #commit by Sync 1.1: with prevData and the prev of each
// operation a consumer can invert it and compare the result with the tree it
// knows.
func commitFrame(before, now layout.State, changes []change, blocks []byte) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Commit{
		Blobs:  []lexutil.LexLink{},
		Blocks: blocks,
		Commit: lexutil.LexLink(now.Commit),
		Ops:    []*comatproto.SyncSubscribeRepos_RepoOp{},
		Repo:   now.DID,
		Rev:    now.Rev,
		Seq:    int64(now.Seq),
		Time:   frameTime(now.Seq),
	}
	if before.Rev != "" {
		msg.Since = &before.Rev
		msg.PrevData = link(before.Data)
	}
	size := len(blocks) + 512
	for _, c := range changes {
		size += len(c.path) + 128
		if !c.changed() {
			continue // Sync 1.1 can't express a record replaced by itself
		}
		msg.Ops = append(msg.Ops, &comatproto.SyncSubscribeRepos_RepoOp{
			Action: string(c.action()),
			Path:   c.path,
			Cid:    link(c.cid),
			Prev:   link(c.prev),
		})
	}
	return encodeFrame(commitKind, &msg, size)
}

func noticeFrame(n Notice, s layout.State, handle string, seq uint64) ([]byte, error) {
	switch n {
	case Identity:
		msg := comatproto.SyncSubscribeRepos_Identity{Did: s.DID, Seq: int64(seq), Time: frameTime(seq)}
		if handle != "" {
			msg.Handle = &handle
		}
		return encodeFrame(string(Identity), &msg, 0)
	case Account:
		return accountFrame(s.DID, "", seq)
	case Deactivated:
		return accountFrame(s.DID, "deactivated", seq)
	case Sync:
		return syncFrame(s, seq)
	}
	return nil, fmt.Errorf("unknown notice %q", n)
}

// accountFrame returns an #account. The status is the reason why the account is
// not active; empty: it is active.
func accountFrame(did, status string, seq uint64) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Account{Active: status == "", Did: did, Seq: int64(seq), Time: frameTime(seq)}
	if status != "" {
		msg.Status = &status
	}
	return encodeFrame(string(Account), &msg, 0)
}

func syncFrame(s layout.State, seq uint64) ([]byte, error) {
	var blocks bytes.Buffer // writing to it can't fail
	car.WriteHeader(&blocks, s.Commit)
	car.WriteBlock(&blocks, s.Commit, s.Block)
	return encodeFrame(string(Sync), &comatproto.SyncSubscribeRepos_Sync{
		Blocks: blocks.Bytes(), Did: s.DID, Rev: s.Rev, Seq: int64(seq), Time: frameTime(seq),
	}, blocks.Len()+512)
}

func link(c cid.Cid) *lexutil.LexLink {
	if !c.Defined() {
		return nil
	}
	l := lexutil.LexLink(c)
	return &l
}

func frameTime(micros uint64) string {
	return lexicon.Datetime(time.UnixMicro(int64(micros)))
}
