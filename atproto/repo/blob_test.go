package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

func upload(t testing.TB, r *Repo, content string) Blob {
	t.Helper()
	b, err := r.Upload(context.Background(), strings.NewReader(content), 1<<20, func([]byte) string { return "text/plain" })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// picture returns a write of a record that refers to blobs.
func picture(action Action, rkey string, blobs ...Blob) Write {
	list := []any{}
	for _, b := range blobs {
		list = append(list, atdata.Blob{Ref: atdata.CIDLink(b.CID), MimeType: b.MimeType, Size: b.Size})
	}
	data, err := atdata.MarshalCBOR(map[string]any{"$type": "com.example.picture", "list": list})
	if err != nil {
		panic(err)
	}
	return Write{action, "com.example.picture", rkey, data}
}

func unpicture(rkey string) Write {
	return Write{Action: Delete, Collection: "com.example.picture", RKey: rkey}
}

// wantBlob checks the content of a blob; "": the blob is not found.
func wantBlob(t testing.TB, r *Repo, c cid.Cid, want string) {
	t.Helper()
	b, err := r.Blob(c)
	if want == "" {
		if !errors.Is(err, ErrBlobNotFound) {
			t.Errorf("%s: got %+v, %v, want none", c, b, err)
		}
		return
	}
	if err != nil || b.Size != int64(len(want)) || b.MimeType != "text/plain" {
		t.Errorf("%s: got %+v, %v", c, b, err)
		return
	}
	content, err := r.OpenBlob(b)
	if err != nil {
		t.Errorf("%s: %v", c, err)
		return
	}
	defer content.Close()
	if got, err := io.ReadAll(content); err != nil || string(got) != want {
		t.Errorf("%s: got %.100q, %v, want %.100q", c, got, err, want)
	}
}

func blobFileNames(t testing.TB, cfg Config) []string {
	t.Helper()
	names, err := cfg.FS.List(cfg.FS.PathJoin(cfg.Dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func rawCID(content string) cid.Cid { return block.Digest(sha256.Sum256([]byte(content))).BlobCID() }

func TestBlobLifetime(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	r := initRepo(t, cfg, profile())
	one, two := upload(t, r, "one"), upload(t, r, "two")
	if one.CID != rawCID("one") || one.CID.Prefix().Codec != cid.Raw || one.Size != 3 {
		t.Fatalf("got %+v", one)
	}
	wantBlob(t, r, one.CID, "")
	apply(t, r, picture(Create, "a", one, two, one), picture(Create, "b", one))
	wantBlob(t, r, one.CID, "one")
	wantBlob(t, r, two.CID, "two")
	for _, step := range []struct {
		writes   []Write
		one, two string
	}{
		{[]Write{picture(Update, "a", one)}, "one", ""},
		{[]Write{unpicture("b")}, "one", ""},
		{[]Write{picture(Update, "a", two)}, "", "two"},
		{[]Write{picture(Create, "c", one), unpicture("c")}, "", "two"},
		{[]Write{unpicture("a"), picture(Create, "a", one, two)}, "one", "two"},
		{[]Write{note(Create, "n", "1")}, "one", "two"},
		{[]Write{unpicture("a")}, "", ""},
		{[]Write{picture(Create, "d", one)}, "one", ""},
	} {
		apply(t, r, step.writes...)
		wantBlob(t, r, one.CID, step.one)
		wantBlob(t, r, two.CID, step.two)
		now = now.Add(20 * time.Minute)
	}
	// two has been idle for 40 minutes.
	cleanUp := func(want int) {
		t.Helper()
		_, err := r.send(request{ctx: t.Context(), work: func(w *writer, _ store.Batch) error { return w.cleanUp(r.publish) }})
		if err != nil {
			t.Fatal(err)
		}
		if names := blobFileNames(t, cfg); len(names) != want {
			t.Errorf("got %d files, want %d: %v", len(names), want, names)
		}
	}
	cleanUp(2)
	now = now.Add(21 * time.Minute)
	cleanUp(1)
	now = now.Add(100 * time.Hour)
	cleanUp(1)
	wantBlob(t, r, one.CID, "one")
	_, err := r.Apply(context.Background(), []Write{picture(Create, "e", two)}, nil)
	if !errors.Is(err, ErrBlobNotFound) {
		t.Errorf("a record that refers to a deleted blob: %v", err)
	}
	upload(t, r, "two")
	apply(t, r, picture(Create, "e", two))
	wantBlob(t, r, two.CID, "two")
	checkBlobRows(t, r, map[string][]Blob{"d": {one}, "e": {two}})
}

// checkBlobRows compares the rows with the blobs of each record.
func checkBlobRows(t testing.TB, r *Repo, want map[string][]Blob) {
	t.Helper()
	uses, distinct := 0, map[cid.Cid]uint32{}
	for _, blobs := range want {
		for _, b := range blobs {
			uses++
			distinct[b.CID]++
		}
	}
	for prefix, n := range map[string]int{layout.PrefixBlobUse: uses, layout.PrefixBlobRefs: len(want), layout.PrefixBlob: len(distinct), layout.PrefixIdleBlob: 0} {
		if got := countKeys(t, r, prefix); got != n {
			t.Errorf("%d keys under %s, want %d", got, prefix, n)
		}
	}
	for c, n := range distinct {
		d, _ := block.BlobDigest(c)
		if row, ok, err := layout.ReadBlob(r.store, d); err != nil || !ok || row.Uses != n || row.Idle != 0 {
			t.Errorf("%s: got %+v, %v, want %d uses", c, row, err, n)
		}
	}
}

func TestRecordWithWrongBlob(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	b := upload(t, r, "content")
	before := r.Head()
	other, size, unknown, cbor := b, b, b, b
	other.MimeType = "image/png"
	size.Size++
	unknown.CID = rawCID("never uploaded")
	cbor.CID = block.CIDOf([]byte("content"))
	for _, c := range []struct {
		blob Blob
		want error
	}{{other, ErrBlobType}, {size, ErrBlobSize}, {unknown, ErrBlobNotFound}, {cbor, ErrBlobNotFound}} {
		_, err := r.Apply(context.Background(), []Write{note(Create, "n", "1"), picture(Create, "p", b, c.blob)}, nil)
		var at *WriteError
		if !errors.Is(err, c.want) || !errors.As(err, &at) || at.Index != 1 {
			t.Errorf("%+v: got %v, want %v at the second write", c.blob, err, c.want)
		}
	}
	if r.Head() != before {
		t.Error("a refused write changed the head")
	}
	broken := picture(Create, "p", b)
	broken.Record = append(broken.Record, 0)
	if _, err := r.Apply(context.Background(), []Write{broken}, nil); !errors.Is(err, ErrInvalidRecord) {
		t.Errorf("got %v", err)
	}
}

func TestUploadRefused(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	plain := func([]byte) string { return "text/plain" }
	if _, err := r.Upload(t.Context(), strings.NewReader("12345"), 4, plain); !errors.Is(err, ErrTooLarge) {
		t.Errorf("5 of 4 bytes: got %v", err)
	}
	gone := errors.New("client disconnected")
	body := io.MultiReader(strings.NewReader("12"), &failingReader{gone})
	if _, err := r.Upload(t.Context(), body, 4, plain); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if names := blobFileNames(t, cfg); len(names) != 0 {
		t.Errorf("remaining files: %v", names)
	}
	var head []byte
	b, err := r.Upload(t.Context(), bytes.NewReader(make([]byte, 10_000)), 10_000, func(h []byte) string { head = h; return "x/y" })
	if err != nil || b.Size != 10_000 || len(head) != sniffBytes {
		t.Errorf("got %+v, %v and a head of %d", b, err, len(head))
	}
	again, err := r.Upload(t.Context(), bytes.NewReader(make([]byte, 10_000)), 10_000, plain)
	if err != nil || again != b {
		t.Errorf("uploaded again: got %+v, %v, want %+v", again, err, b)
	}
	if empty := upload(t, r, ""); empty.Size != 0 {
		t.Errorf("got %+v", empty)
	}
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// After a crash an answered upload has its row and its file. An unanswered one has
// both or neither, and no other file remains.
func TestUploadCrash(t *testing.T) {
	t.Parallel()
	for round := range 30 {
		cfg := testConfig(t)
		disk := vfs.NewCrashableMem()
		cfg.FS = disk
		r := initRepo(t, cfg, profile())
		var acked []Blob
		var crashed *vfs.MemFS
		for i := range 4 {
			body := &crashingReader{Reader: strings.NewReader(strings.Repeat(fmt.Sprint(i), 100))}
			if i == 3 {
				body.at, body.crash = 50, func() {
					crashed = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 10 * (round % 11), RNG: rand.New(rand.NewPCG(1, uint64(round)))})
				}
			}
			b, err := r.Upload(t.Context(), body, 1000, func([]byte) string { return "text/plain" })
			if err != nil {
				t.Fatal(err)
			}
			if i < 3 {
				acked = append(acked, b)
			}
			if i == 1 {
				apply(t, r, picture(Create, "p", acked...))
			}
		}
		cfg.FS = crashed
		r = openRepo(t, cfg)
		if names := blobFileNames(t, cfg); len(names) != 3 {
			t.Errorf("round %d: got files %v", round, names)
		}
		apply(t, r, picture(Create, "q", acked...))
		for i, b := range acked {
			wantBlob(t, r, b.CID, strings.Repeat(fmt.Sprint(i), 100))
		}
		checkBlobRows(t, r, map[string][]Blob{"p": acked[:2], "q": acked})
		r.Close()
	}
}

// crashingReader copies the disk after half of a body was read.
type crashingReader struct {
	io.Reader
	at    int
	crash func()
}

func (r *crashingReader) Read(b []byte) (int, error) {
	if r.at > 0 && len(b) > r.at {
		b = b[:r.at]
	} else if r.crash != nil {
		r.crash()
		r.crash = nil
	}
	n, err := r.Reader.Read(b)
	r.at -= n
	return n, err
}

// Files that a crash left without a row are removed by Open, others stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	b := upload(t, r, "kept")
	apply(t, r, picture(Create, "p", b))
	r.Close()
	stray := layout.NewBlobFiles(cfg.FS, cfg.Dir)
	d, _ := block.BlobDigest(rawCID("stray"))
	for _, path := range []string{stray.Path(d), stray.FS.PathJoin(stray.Dir, "new-1"), stray.FS.PathJoin(stray.Dir, "README")} {
		f, err := stray.FS.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	r = openRepo(t, cfg)
	wantBlob(t, r, b.CID, "kept")
	if names := blobFileNames(t, cfg); len(names) != 2 || !slices.Contains(names, "README") {
		t.Errorf("got %v", names)
	}
}

// Damaged bytes are never returned as the blob.
func TestDamagedBlob(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	b := upload(t, r, strings.Repeat("x", 100_000))
	apply(t, r, picture(Create, "p", b))
	d, _ := block.BlobDigest(b.CID)
	for name, content := range map[string]string{
		"a flipped bit": strings.Repeat("x", 50_000) + "y" + strings.Repeat("x", 49_999),
		"cut short":     strings.Repeat("x", 99_000),
	} {
		f, err := cfg.FS.Create(r.blobs.Path(d), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		got, err := r.OpenBlob(b)
		if err != nil {
			t.Fatal(err)
		}
		read, err := io.ReadAll(got)
		if !errors.Is(err, layout.ErrDamaged) || len(read) >= 100_000 {
			t.Errorf("%s: got %d bytes, %v", name, len(read), err)
		}
		got.Close()
	}
	if err := cfg.FS.Remove(r.blobs.Path(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenBlob(b); !errors.Is(err, ErrBlobNotFound) {
		t.Errorf("lost: got %v", err)
	}
	upload(t, r, strings.Repeat("x", 100_000)) // repairs it
	wantBlob(t, r, b.CID, strings.Repeat("x", 100_000))
}

func TestListBlobs(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	var all []Blob
	for i := range 25 {
		all = append(all, upload(t, r, fmt.Sprint("blob ", i)))
	}
	first := apply(t, r, picture(Create, "a", all[:20]...))
	second := apply(t, r, picture(Create, "b", all[10:24]...))
	list := func(since string, limit int) (found []cid.Cid) {
		t.Helper()
		after := cid.Undef
		for {
			page, err := r.ListBlobs(t.Context(), since, after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("got %d, %v", len(page), err)
			}
			if len(page) == 0 {
				return found
			}
			found, after = append(found, page...), page[len(page)-1]
		}
	}
	for since, want := range map[string][]Blob{"": all[:24], first.Rev: all[10:24], second.Rev: nil} {
		for _, limit := range []int{1, 7, 1000} {
			got := list(since, limit)
			if len(got) != len(want) || len(slices.Compact(slices.Clone(got))) != len(want) {
				t.Errorf("since %q by %d: got %d, want %d", since, limit, len(got), len(want))
			}
			for _, b := range want {
				if !slices.Contains(got, b.CID) {
					t.Errorf("since %q: %s is missing", since, b.CID)
				}
			}
		}
	}
	if missing, err := r.MissingBlobs(cid.Undef, 10); err != nil || len(missing) != 0 {
		t.Errorf("missing: got %v, %v", missing, err)
	}
}

// A commit reads the references to blobs that earlier commits of its group wrote.
func TestBlobsInOneGroup(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	b := upload(t, r, "shared")
	done := make(chan error)
	const writers = 8
	for i := range writers {
		go func() {
			rkey := fmt.Sprint("p", i)
			var err error
			for range 20 {
				for _, w := range []Write{picture(Create, rkey, b), picture(Update, rkey), picture(Update, rkey, b), unpicture(rkey)} {
					if _, e := r.Apply(context.Background(), []Write{w}, nil); e != nil {
						err = e
					}
				}
			}
			if _, e := r.Apply(context.Background(), []Write{picture(Create, rkey, b)}, nil); e != nil {
				err = e
			}
			done <- err
		}()
	}
	want := map[string][]Blob{}
	for i := range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
		want[fmt.Sprint("p", i)] = []Blob{b}
	}
	checkBlobRows(t, r, want)
	wantBlob(t, r, b.CID, "shared")
}
