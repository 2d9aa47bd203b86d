package repair

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// exported returns the CAR file of a closed repo with its blobs.
func exported(t testing.TB, cfg repo.Config) []byte {
	t.Helper()
	r := openRepo(t, cfg)
	defer r.Close()
	var car bytes.Buffer
	if err := r.Export(context.Background(), &car); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ExportBlobs(context.Background(), &car); err != nil {
		t.Fatal(err)
	}
	return car.Bytes()
}

func withBlobs(t testing.TB, cfg repo.Config, m model) []repo.Blob {
	t.Helper()
	r := openRepo(t, cfg)
	defer r.Close()
	var blobs []repo.Blob
	for i := range 3 {
		b, err := r.Upload(context.Background(), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 100_000)), 1<<20, func([]byte) string { return "image/png" })
		if err != nil {
			t.Fatal(err)
		}
		w := repo.Write{Action: repo.Create, Collection: "com.example.note", RKey: "blob" + string(rune('a'+i)), Record: recordWith(b)}
		apply(t, r, w)
		m.apply([]repo.Write{w})
		blobs = append(blobs, b)
	}
	return blobs
}

// A CAR file with blobs is restored over a newer state of the account and into a
// new repo; event log and revs continue.
func TestRestore(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 600)
	blobs := withBlobs(t, cfg, m)
	car := exported(t, cfg)
	then, _ := verify(t, cfg)

	r := openRepo(t, cfg)
	apply(t, r, note(repo.Update, "k00001", "later"), note(repo.Delete, "k00002", ""), note(repo.Create, "later", "later"), note(repo.Delete, "bloba", ""))
	later := r.Head()
	r.Close()

	elsewhere := cfg
	elsewhere.Dir = "elsewhere"
	initRepo(t, elsewhere, profile()).Close()

	for _, cfg := range []repo.Config{cfg, elsewhere} {
		done, err := Restore(context.Background(), cfg, nil, bytes.NewReader(car))
		if err != nil {
			t.Fatal(err)
		}
		if !done.Signed || done.From != then.Head.Rev || done.Records != int64(len(m)) || done.Blobs != 3 || done.Missing != 0 || done.Head.Data != then.Head.Data || !layout.Exists(cfg.FS, done.Backup) {
			t.Errorf("%+v", done)
		}
		if cfg.Dir == "hold" && (done.Head.Rev <= later.Rev || done.Head.Seq <= later.Seq) || done.Head.Rev <= then.Head.Rev {
			t.Errorf("%+v is not after %+v", done.Head, later)
		}
		mine := model{}
		for path, rec := range m {
			mine[path] = rec
		}
		r := checkSound(t, cfg, mine)
		for _, b := range blobs {
			if got, err := r.Blob(b.CID); err != nil || got != b {
				t.Errorf("blob %+v, %v; want %+v", got, err, b)
			}
		}
		all := kinds(t, r, 0)
		if all[len(all)-2] != string(repo.Sync) || all[0] != string(repo.Identity) {
			t.Errorf("events %q", all)
		}
	}
}

// A file that is not a complete repo of this account changes nothing.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 100)
	withBlobs(t, cfg, m)
	car := exported(t, cfg)
	var flipped []byte
	for _, tc := range []struct {
		name string
		car  func() []byte
		want string
	}{
		{"nothing", func() []byte { return nil }, "not a complete CAR"},
		{"no CAR", func() []byte { return []byte("hello, how are you") }, "not a complete CAR"},
		{"the end is missing", func() []byte { return car[:len(car)-10] }, "truncated"},
		{"half is missing", func() []byte { return car[:bytes.Index(car, []byte("note 7"))] }, ""},
		{"another record", func() []byte { return bytes.Replace(car, []byte("note 77"), []byte("note 78"), 1) }, "don't match"},
		{"a bit of a blob", func() []byte {
			flipped = bytes.Clone(car)
			flipped[len(flipped)-1] ^= 1
			return flipped
		}, "don't match"},
		{"another account", func() []byte {
			other := testConfig(t)
			other.DID = "did:web:other.example.com"
			filled(t, other, 3)
			return exported(t, other)
		}, "repo of did:web:other.example.com"},
	} {
		_, err := Restore(context.Background(), cfg, nil, bytes.NewReader(tc.car()))
		if !errors.Is(err, repo.ErrInvalidCAR) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
		if names, _ := cfg.FS.List(""); len(names) != 1 {
			t.Fatalf("%s: remaining folders: %q", tc.name, names)
		}
	}
	checkSound(t, cfg, m)
}

// A CAR file that another key has signed, as that of an account that moves here.
func TestRestoreOtherKey(t *testing.T) {
	t.Parallel()
	cfg, from := testConfig(t), testConfig(t)
	m := filled(t, from, 10)
	initRepo(t, cfg, profile()).Close()
	car := exported(t, from)
	done, err := Restore(context.Background(), cfg, nil, bytes.NewReader(car))
	if err != nil || done.Signed {
		t.Fatalf("%+v, %v", done, err)
	}
	checkSound(t, cfg, m).Close()
	public, err := from.Key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if done, err = Restore(context.Background(), cfg, []atcrypto.PublicKey{public}, bytes.NewReader(car)); err != nil || !done.Signed {
		t.Fatalf("with its key: %+v, %v", done, err)
	}
}
