package layout

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/internal/store"
)

func TestEnd(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{"n/": "n0", "b/\x01": "b/\x02", "b/\xff": "b0\x00", "b/\xff\xff": "b0\x00\x00"} {
		if got := string(End(prefix)); got != want {
			t.Errorf("%q: got %q, want %q", prefix, got, want)
		}
	}
}

func TestBlobRow(t *testing.T) {
	t.Parallel()
	for _, want := range []BlobRow{{}, {Uses: 3, Stored: true, Size: 1 << 33, MIME: "image/png"}, {Stored: true, Idle: 1_700_000_000_000_000, MIME: "text/plain"}} {
		if got, err := DecodeBlobRow(want.Encode()); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := DecodeBlobRow(make([]byte, 20)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a truncated row: %v", err)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	record := []byte("record")
	val := append(block.DigestOf(block.CIDOf(record)), record...)
	if c, got, err := VerifyRecord("a/b", val); err != nil || c != block.CIDOf(record) || !bytes.Equal(got, record) {
		t.Errorf("got %s, %q, %v", c, got, err)
	}
	val[len(val)-1] ^= 1
	if _, _, err := VerifyRecord("a/b", val); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "a/b") {
		t.Errorf("changed: %v", err)
	}
	if _, _, err := VerifyRecord("a/b", val[:31]); !errors.Is(err, ErrDamaged) {
		t.Errorf("truncated: %v", err)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	db, err := Open("repo", Options{FS: vfs.NewMem(), CacheSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if seq, err := LastDropped(db); seq != 0 || err != nil {
		t.Errorf("dropped %d, %v; want none", seq, err)
	}
	b := db.NewBatch()
	logged := SetEvent(b, 100, 7, []byte("frame"))
	SetDropped(b, 6)
	if err := db.Commit(b, store.NoSync); err != nil || logged != 105 {
		t.Fatalf("%d bytes logged, %v", logged, err)
	}
	it, err := Iterate(db, PrefixEvent)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	if !it.First() || SeqOf(it.Key()) != 7 {
		t.Fatalf("the key is %q", it.Key())
	}
	if before, frame, err := SplitEvent(it.Value()); before != 100 || string(frame) != "frame" || err != nil {
		t.Errorf("%d bytes before %q, %v", before, frame, err)
	}
	if n, err := Count(db, PrefixEvent); n != 1 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
	if seq, err := LastDropped(db); seq != 6 || err != nil {
		t.Errorf("dropped %d, %v; want 6", seq, err)
	}
}
