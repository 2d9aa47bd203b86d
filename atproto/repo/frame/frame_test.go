package frame

import (
	"bytes"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
)

const (
	testDID  = "did:web:registry.example.com"
	testSeq  = 1_767_225_600_000_001
	testTime = "2026-01-01T00:00:00.000Z"
)

func must(t *testing.T) func([]byte, error) []byte {
	return func(frame []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return frame
	}
}

func decodeAs[T any](t *testing.T, frame []byte) T {
	t.Helper()
	msg, err := Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := msg.(T); !ok {
		t.Fatalf("decoded as %T", msg)
	}
	return msg.(T)
}

func TestCommit(t *testing.T) {
	t.Parallel()
	commit, data, record := block.CIDOf([]byte("commit")), block.CIDOf([]byte("data")), block.CIDOf([]byte("record"))
	event := Commit{
		DID: testDID, Seq: testSeq, Commit: commit, Rev: "3k2", Since: "3k1", PrevData: data, Blocks: []byte("blocks"),
		Ops: []Op{{Action: "create", Path: "a/b", CID: record}, {Action: "delete", Path: "a/c", Prev: record}},
	}
	frame := must(t)(event.Encode())
	msg, err := DecodeCommit(frame)
	if err != nil {
		t.Fatal(err)
	}
	if msg.Repo != testDID || msg.Seq != testSeq || msg.Time != testTime || cid.Cid(msg.Commit) != commit || msg.Rev != "3k2" {
		t.Errorf("decoded %+v", msg)
	}
	if msg.Since == nil || *msg.Since != "3k1" || msg.PrevData == nil || cid.Cid(*msg.PrevData) != data || string(msg.Blocks) != "blocks" {
		t.Errorf("decoded %+v", msg)
	}
	if len(msg.Ops) != 2 || cid.Cid(*msg.Ops[0].Cid) != record || msg.Ops[0].Prev != nil ||
		msg.Ops[1].Cid != nil || cid.Cid(*msg.Ops[1].Prev) != record || msg.Ops[1].Action != "delete" || msg.Ops[1].Path != "a/c" {
		t.Errorf("decoded operations %+v, %+v", msg.Ops[0], msg.Ops[1])
	}

	first := must(t)(Commit{DID: testDID, Commit: commit, Rev: "3k1", PrevData: data}.Encode())
	if msg := decodeAs[*comatproto.SyncSubscribeRepos_Commit](t, first); msg.Since != nil || msg.PrevData != nil {
		t.Errorf("the first commit has a predecessor: %+v", msg)
	}
}

func TestOtherEvents(t *testing.T) {
	t.Parallel()
	event, commit := Event{testDID, testSeq}, []byte("commit")

	sync := decodeAs[*comatproto.SyncSubscribeRepos_Sync](t, must(t)(event.Sync(block.CIDOf(commit), "3k1", commit)))
	if sync.Did != testDID || sync.Seq != testSeq || sync.Time != testTime || sync.Rev != "3k1" || !bytes.HasSuffix(sync.Blocks, commit) {
		t.Errorf("#sync decoded as %+v", sync)
	}
	identity := decodeAs[*comatproto.SyncSubscribeRepos_Identity](t, must(t)(event.Identity("registry.example.com")))
	if identity.Did != testDID || identity.Seq != testSeq || identity.Handle == nil || *identity.Handle != "registry.example.com" {
		t.Errorf("#identity decoded as %+v", identity)
	}
	active := decodeAs[*comatproto.SyncSubscribeRepos_Account](t, must(t)(event.Account("")))
	if !active.Active || active.Status != nil || active.Did != testDID || active.Seq != testSeq {
		t.Errorf("#account decoded as %+v", active)
	}
	inactive := decodeAs[*comatproto.SyncSubscribeRepos_Account](t, must(t)(event.Account("deactivated")))
	if inactive.Active || inactive.Status == nil || *inactive.Status != "deactivated" {
		t.Errorf("#account decoded as %+v", inactive)
	}
	if msg, err := DecodeCommit(must(t)(event.Account(""))); msg != nil || err != nil {
		t.Errorf("an #account is the #commit %+v, %v", msg, err)
	}
}

func TestDecodeInvalid(t *testing.T) {
	t.Parallel()
	valid := must(t)(Event{testDID, testSeq}.Account(""))
	unknown := must(t)(encode("#other", &comatproto.SyncSubscribeRepos_RepoOp{Cid: (*lexutil.LexLink)(nil)}, 0))
	for name, test := range map[string]struct {
		frame []byte
		want  string
	}{
		"empty":                {nil, "invalid frame header"},
		"truncated header":     {valid[:5], "invalid frame header"},
		"kind that is no text": {append([]byte{0xa2, 0x61, 't', 1}, valid[4:]...), "invalid frame header"},
		"error frame":          {[]byte("\xa1bop\x20\xa0"), "invalid frame header"},
		"unknown kind":         {unknown, `unknown event kind "#other"`},
		"truncated body":       {valid[:len(valid)-1], "invalid #account frame"},
		"trailing bytes":       {append(bytes.Clone(valid), 0), "1 trailing bytes"},
	} {
		if _, err := Decode(test.frame); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
