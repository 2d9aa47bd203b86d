package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/mst"
)

const testDID = "did:web:example.com"

// memory is a Blocks in memory.
type memory map[string][]byte

func (m memory) Put(digest, data []byte) error {
	m[string(digest)] = bytes.Clone(data)
	return nil
}

func (m memory) Get(digest, buf []byte) ([]byte, bool, error) {
	data, ok := m[string(digest)]
	return append(buf, data...), ok, nil
}

// pack returns a CAR file of records and a blob. Records whose path is in without
// are in the tree only.
func pack(t *testing.T, records map[string][]byte, blob string, without ...string) []byte {
	t.Helper()
	var body bytes.Buffer
	tree := mst.Builder{Put: func(n block.Block) error { return car.WriteBlock(&body, n.CID, n.Data) }}
	for _, path := range slices.Sorted(maps.Keys(records)) {
		c := block.CIDOf(records[path])
		if err := tree.Add(path, c); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(without, path) {
			car.WriteBlock(&body, c, records[path])
		}
	}
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	commit := indigo.Commit{DID: testDID, Version: indigo.ATPROTO_REPO_VERSION, Data: root, Rev: syntax.NewTIDNow(1).String()}
	if err := commit.Sign(key); err != nil {
		t.Fatal(err)
	}
	var signed, file bytes.Buffer
	if err := commit.MarshalCBOR(&signed); err != nil {
		t.Fatal(err)
	}
	id := block.CIDOf(signed.Bytes())
	car.WriteHeader(&file, id)
	file.Write(body.Bytes())
	car.WriteBlock(&file, blobDigest(blob).BlobCID(), []byte(blob))
	car.WriteBlock(&file, id, signed.Bytes())
	return file.Bytes()
}

func blobDigest(blob string) block.Digest {
	return block.Digest(block.DigestOf(block.CIDOf([]byte(blob))))
}

func record(t *testing.T, text string) []byte {
	t.Helper()
	data, err := atdata.MarshalCBOR(map[string]any{"$type": "com.example.note", "text": text})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestArchive(t *testing.T) {
	t.Parallel()
	records := map[string][]byte{"com.example.note/a": record(t, "one"), "com.example.note/b": record(t, "two"), "com.example.other/a": record(t, "three")}
	blobs := 0
	a := Archive{DID: testDID, Blocks: memory{}, Blob: func(d block.Digest, body io.Reader) error {
		if got, err := io.ReadAll(body); err != nil || string(got) != "blob" || d != blobDigest("blob") {
			t.Errorf("blob %q, %v", got, err)
		}
		blobs++
		return nil
	}}
	commit, err := a.Read(context.Background(), bytes.NewReader(pack(t, records, "blob", "com.example.note/b")))
	if err != nil || blobs != 1 {
		t.Fatalf("%d blobs, %v", blobs, err)
	}
	if err := CheckRev(commit, time.Now()); err != nil {
		t.Error(err)
	}
	if err := CheckRev(commit, time.Now().Add(-time.Hour)); !errors.Is(err, ErrInvalid) {
		t.Errorf("ahead of the clock: %v", err)
	}
	var paths []string
	err = a.Records(context.Background(), commit.Data, func(path string, c cid.Cid, data []byte) error {
		paths = append(paths, path)
		if want := records[path]; c != block.CIDOf(want) || (data == nil) != (path == "com.example.note/b") || data != nil && !bytes.Equal(data, want) {
			t.Errorf("%s: %s with %q", path, c, data)
		}
		return nil
	})
	if err != nil || !slices.Equal(paths, slices.Sorted(maps.Keys(records))) {
		t.Errorf("paths %q, %v", paths, err)
	}
}

func TestArchiveErrors(t *testing.T) {
	t.Parallel()
	file := pack(t, map[string][]byte{"com.example.note/a": record(t, "one")}, "blob")
	broken := errors.New("connection reset")
	for name, tc := range map[string]struct {
		did   string
		in    io.Reader
		limit int64
		want  error
	}{
		"not a CAR file":  {testDID, bytes.NewReader([]byte("hello")), 0, ErrInvalid},
		"truncated":       {testDID, bytes.NewReader(file[:len(file)-3]), 0, ErrInvalid},
		"too long":        {testDID, bytes.NewReader(file), int64(len(file)) - 1, ErrTooLarge},
		"as long":         {testDID, bytes.NewReader(file), int64(len(file)), nil},
		"another account": {"did:web:other.example.com", bytes.NewReader(file), 0, ErrInvalid},
		"a read error":    {testDID, io.MultiReader(bytes.NewReader(file[:40]), failing{broken}), 0, broken},
	} {
		a := Archive{DID: tc.did, Blocks: memory{}, Limit: tc.limit}
		if _, err := a.Read(context.Background(), tc.in); !errors.Is(err, tc.want) || name == "a read error" && errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
