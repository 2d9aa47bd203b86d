package repo

import (
	"bytes"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// frame is one message of com.atproto.sync.subscribeRepos: the header
// {"t": kind, "op": 1}, then the body of about so many bytes, both DAG-CBOR.
func frame(kind string, body cbg.CBORMarshaler, size int) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(size)
	out.Write([]byte{0xa2, 0x61, 't', 0x60 | byte(len(kind))})
	out.WriteString(kind)
	out.Write([]byte{0x62, 'o', 'p', 1})
	if err := body.MarshalCBOR(&out); err != nil {
		return nil, fmt.Errorf("encode %s frame: %w", kind, err)
	}
	return out.Bytes(), nil
}

// commitFrame is a #commit by Sync 1.1: prevData and the prev of each
// operation let a consumer undo it and meet the tree it knows.
func commitFrame(before, now state, changes []change, car []byte) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Commit{
		Blobs:  []lexutil.LexLink{},
		Blocks: car,
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
	size := len(car) + 512
	for _, c := range changes {
		size += len(c.path) + 128
		if !c.changed() {
			continue // Sync 1.1 has no word for a record replaced by itself
		}
		msg.Ops = append(msg.Ops, &comatproto.SyncSubscribeRepos_RepoOp{
			Action: string(c.action()),
			Path:   c.path,
			Cid:    link(c.cid),
			Prev:   link(c.prev),
		})
	}
	return frame("#commit", &msg, size)
}

func identityFrame(did, handle string, seq uint64) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Identity{Did: did, Seq: int64(seq), Time: frameTime(seq)}
	if handle != "" {
		msg.Handle = &handle
	}
	return frame("#identity", &msg, 0)
}

// accountFrame is an #account. The status says why it is not active; empty: it is.
func accountFrame(did, status string, seq uint64) ([]byte, error) {
	msg := comatproto.SyncSubscribeRepos_Account{Active: status == "", Did: did, Seq: int64(seq), Time: frameTime(seq)}
	if status != "" {
		msg.Status = &status
	}
	return frame("#account", &msg, 0)
}

func link(c cid.Cid) *lexutil.LexLink {
	if !c.Defined() {
		return nil
	}
	l := lexutil.LexLink(c)
	return &l
}

func frameTime(micros uint64) string {
	return time.UnixMicro(int64(micros)).UTC().Format("2006-01-02T15:04:05.000Z")
}
