// Package frame encodes and decodes the events of com.atproto.sync.subscribeRepos.
//
// A frame is one message of https://atproto.com/specs/event-stream: the header
// {"t": kind, "op": 1}, then the body, both in DAG-CBOR. The event log of
// atproto/repo stores frames as they are sent to subscribers.
package frame

import (
	"bytes"
	"errors"
	"fmt"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// The kinds of events.
const (
	KindCommit   = "#commit"
	KindSync     = "#sync"
	KindIdentity = "#identity"
	KindAccount  = "#account"
)

// Decode decodes a frame. The message is one of
// *comatproto.SyncSubscribeRepos_Commit, _Sync, _Identity and _Account.
func Decode(frame []byte) (message any, err error) {
	kind, body, err := split(frame)
	if err != nil {
		return nil, err
	}
	var msg cbg.CBORUnmarshaler
	switch kind {
	case KindCommit:
		msg = &comatproto.SyncSubscribeRepos_Commit{}
	case KindSync:
		msg = &comatproto.SyncSubscribeRepos_Sync{}
	case KindIdentity:
		msg = &comatproto.SyncSubscribeRepos_Identity{}
	case KindAccount:
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

// DecodeCommit decodes a #commit. It returns nil for a frame of another kind.
func DecodeCommit(frame []byte) (*comatproto.SyncSubscribeRepos_Commit, error) {
	if !bytes.HasPrefix(frame, header(KindCommit)) {
		return nil, nil
	}
	msg, err := Decode(frame)
	if err != nil {
		return nil, err
	}
	return msg.(*comatproto.SyncSubscribeRepos_Commit), nil
}

func split(frame []byte) (kind string, body []byte, err error) {
	rest, ok := bytes.CutPrefix(frame, []byte{0xa2, 0x61, 't'})
	if !ok || len(rest) == 0 || rest[0]&0xe0 != 0x60 || len(rest) < 1+int(rest[0]&0x1f) {
		return "", nil, errors.New("invalid frame header")
	}
	kind = string(rest[1 : 1+int(rest[0]&0x1f)])
	body, ok = bytes.CutPrefix(frame, header(kind))
	if !ok {
		return "", nil, errors.New("invalid frame header")
	}
	return kind, body, nil
}

// header returns the encoded header of a kind, which has less than 24 bytes.
func header(kind string) []byte {
	head := append([]byte{0xa2, 0x61, 't', 0x60 | byte(len(kind))}, kind...)
	return append(head, 0x62, 'o', 'p', 1)
}

// encode encodes a frame whose body has about size bytes.
func encode(kind string, body cbg.CBORMarshaler, size int) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(size)
	out.Write(header(kind))
	if err := body.MarshalCBOR(&out); err != nil {
		return nil, fmt.Errorf("encode %s frame: %w", kind, err)
	}
	return out.Bytes(), nil
}
