package car

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"

	"github.com/tidings-dev/tidings/atproto/block"
)

// sample returns a CAR file of three blocks.
func sample(t testing.TB) (file []byte, blocks [][]byte) {
	t.Helper()
	blocks = [][]byte{[]byte("root"), bytes.Repeat([]byte("x"), 200), {}}
	var out bytes.Buffer
	if err := WriteHeader(&out, block.CIDOf(blocks[0])); err != nil {
		t.Fatal(err)
	}
	for i, data := range blocks {
		c := block.CIDOf(data)
		err := WriteBlock(&out, c, data)
		if i == 1 {
			out.Truncate(out.Len() - len(data) - c.ByteLen() - 2) // the same, written by its digest
			err = WriteDigest(&out, block.DigestOf(c), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes(), blocks
}

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	file, blocks := sample(t)
	other, err := car.NewCarReader(bytes.NewReader(file))
	if err != nil || len(other.Header.Roots) != 1 || other.Header.Roots[0] != block.CIDOf(blocks[0]) {
		t.Fatalf("go-car: %+v, %v", other, err)
	}
	for i, want := range blocks {
		if b, err := other.Next(); err != nil || !bytes.Equal(b.RawData(), want) {
			t.Errorf("go-car: block %d: %v", i, err)
		}
	}
	i := 0
	root, err := ReadBlocks(bytes.NewReader(file), 200, func(c cid.Cid, data []byte) error {
		if c != block.CIDOf(blocks[i]) || !bytes.Equal(data, blocks[i]) {
			t.Errorf("block %d: got %s with %d bytes", i, c, len(data))
		}
		i++
		return nil
	})
	if err != nil || root != block.CIDOf(blocks[0]) || i != len(blocks) {
		t.Errorf("%d blocks, root %s: %v", i, root, err)
	}
	var rootless bytes.Buffer
	if err := WriteHeader(&rootless, cid.Undef); err != nil {
		t.Fatal(err)
	}
	if root, err := Read(&rootless, nil); err != nil || root.Defined() {
		t.Errorf("without a root: got %s, %v", root, err)
	}
	sizes := int64(0)
	if _, err := Read(bytes.NewReader(file), func(_ cid.Cid, size int64, _ io.Reader) error { sizes += size; return nil }); err != nil || sizes != 204 {
		t.Errorf("skipped %d bytes, %v", sizes, err)
	}
}

func TestReadInvalid(t *testing.T) {
	t.Parallel()
	file, blocks := sample(t)
	changed := bytes.Clone(file)
	changed[bytes.Index(file, blocks[1])] ^= 1
	for name, tc := range map[string]struct {
		file []byte
		want error
	}{
		"empty":     {nil, ErrFormat},
		"text":      {[]byte("hello, how are you"), ErrFormat},
		"truncated": {file[:bytes.Index(file, blocks[1])+7], ErrFormat},
		"changed":   {changed, ErrHash},
	} {
		_, err := ReadBlocks(bytes.NewReader(tc.file), 1000, func(cid.Cid, []byte) error { return nil })
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if _, err := ReadBlocks(bytes.NewReader(file), 199, func(cid.Cid, []byte) error { return nil }); err == nil {
		t.Error("a block above the limit is read")
	}
}
