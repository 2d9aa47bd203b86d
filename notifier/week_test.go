package notifier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// weekPushes is the number of pushes in TestWeek, unless TIDINGS_WEEK_PUSHES is set. There
// are ten times as many pulls.
const weekPushes = 2000

// seedStorage is a Storage that computes manifests from their seeds, so that it takes little
// memory.
type seedStorage struct {
	mu    sync.Mutex
	seeds map[string]int // of stored manifests, by repository and digest
}

func (s *seedStorage) image(seed int) Push {
	return image(strconv.Itoa(seed), 1+seed%3).as(fmt.Sprint("oss/app", seed%50), fmt.Sprint("v", seed))
}

func (s *seedStorage) set(p Push, seed int, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored {
		s.seeds[p.Repository+"@"+p.Digest] = seed
	} else {
		delete(s.seeds, p.Repository+"@"+p.Digest)
	}
}

func (s *seedStorage) find(repository, digest string) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seed, ok := s.seeds[repository+"@"+digest]
	return seed, ok
}

func (s *seedStorage) Manifest(_ context.Context, repository, digest string) (string, []byte, error) {
	seed, ok := s.find(repository, digest)
	if !ok {
		return "", nil, stored.ErrNotStored
	}
	p := s.image(seed)
	return p.MediaType, p.Payload, nil
}

// BlobSize is not checked by this test.
func (s *seedStorage) BlobSize(context.Context, string, string) (int64, error) { return 1000, nil }

func (s *seedStorage) Blob(context.Context, string, string, int64) ([]byte, error) {
	return nil, stored.ErrNotStored
}

func (s *seedStorage) Has(_ context.Context, repository, digest string) (bool, error) {
	_, ok := s.find(repository, digest)
	return ok, nil
}

func (s *seedStorage) Tagged(_ context.Context, repository, tag string) (string, error) {
	seed, err := strconv.Atoi(strings.TrimPrefix(tag, "v"))
	if err != nil {
		return "", stored.ErrNotStored
	}
	p := s.image(seed)
	if _, ok := s.find(repository, p.Digest); !ok {
		return "", stored.ErrNotStored
	}
	return p.Digest, nil
}

func (s *seedStorage) Tags(context.Context, string) ([]string, error) { return nil, nil }

func (s *seedStorage) Repositories(_ context.Context, visit func(string) error) error {
	for i := range 50 {
		if err := visit(fmt.Sprint("oss/app", i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *seedStorage) Manifests(_ context.Context, repository string, visit func(string) error) error {
	s.mu.Lock()
	var digests []string
	for name := range s.seeds {
		if digest, ok := strings.CutPrefix(name, repository+"@"); ok {
			digests = append(digests, digest)
		}
	}
	s.mu.Unlock()
	slices.Sort(digests)
	for _, d := range digests {
		if err := visit(d); err != nil {
			return err
		}
	}
	return nil
}

// A week of constant pushes, pulls and deletes: each push has its own tag, and half of them
// are deleted again. Disk, memory and Redis stay within limits, and Redis has the numbers that
// were counted.
//
// It measures the memory of the process, so no other test runs beside it.
func TestWeek(t *testing.T) {
	pushes := weekPushes
	if race.Enabled {
		pushes /= 8
	}
	if s := os.Getenv("TIDINGS_WEEK_PUSHES"); s != "" {
		var err error
		if pushes, err = strconv.Atoi(s); err != nil {
			t.Fatalf("TIDINGS_WEEK_PUSHES: %v", err)
		}
	}
	began := time.Now()
	m := clocktest.New()
	m.Set(-7 * 24 * time.Hour)
	dir := t.TempDir()
	storage := &seedStorage{seeds: map[string]int{}}
	db, err := state.Open(state.Config{Dir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	dead := deadletters.New(state.OnPebble(db), db.Space)
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), SegmentSize: 16 << 20, Limit: 1 << 30, Dropped: dead.Dropped})
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t)
	client := server.Client()
	numbers, err := counter.Open(db, counter.Config{Redis: rediscounts.New(client, ""), Journal: j.ID, Instance: "here", Now: m.Now})
	if err != nil {
		t.Fatal(err)
	}
	classifier, err := classify.New(classify.Config{Now: m.Now})
	if err != nil {
		t.Fatal(err)
	}
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	account, err := repo.Init(repo.Config{Dir: filepath.Join(dir, "hold"), DID: owner, Key: key, Reserve: 1, Now: m.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{
		Journal: j, State: state.OnPebble(db), Counter: numbers, Classifier: classifier, DeadLetters: dead,
		Publisher: delivery.OnEmbedded(account), Account: owner, Storage: storage,
		Announce: &announce.Config{}, Public: func(string) bool { return true },
		Now: m.Now, Elapsed: m.Elapsed, Linger: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Notifier: n, t: t}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { n.Run(ctx) })
	ended.Go(func() { numbers.Run(ctx) })

	const chunk = 250
	random := rand.New(rand.NewPCG(1, 2))
	var live []int
	for from := 0; from < pushes; from += chunk {
		var deleted []int
		for range chunk / 2 {
			if len(live) < chunk {
				break
			}
			k := random.IntN(len(live))
			deleted = append(deleted, live[k])
			live = slices.Delete(live, k, k+1)
		}
		var group sync.WaitGroup
		for w := range 25 {
			group.Go(func() {
				for seed := from + w; seed < from+chunk; seed += 25 {
					p := storage.image(seed)
					in, err := n.Intend(context.Background(), p)
					if err != nil {
						t.Error(err)
						return
					}
					storage.set(p, seed, true)
					if err := in.Complete(context.Background()); err != nil {
						t.Error(err)
					}
				}
				for i := w; i < len(deleted); i += 25 {
					p := storage.image(deleted[i])
					in, err := n.IntendDelete(context.Background(), Delete{Repository: p.Repository, Digest: p.Digest})
					if err != nil {
						t.Error(err)
						return
					}
					storage.set(p, 0, false)
					if err := in.Complete(context.Background()); err != nil {
						t.Error(err)
					}
				}
				for i := range 10 * chunk / 25 {
					if i%10 > 0 && len(live) > 0 {
						i = live[(w*7919+i*104729)%len(live)] // not always the same one
					}
					p := Pull{Method: "GET", MediaType: "application/vnd.oci.image.manifest.v1+json", Client: "192.0.2.1", UserAgent: "docker"}
					image := storage.image(i)
					p.Repository, p.Tag, p.Digest = image.Repository, image.Tag, image.Digest
					n.Pull(p)
				}
			})
		}
		group.Wait()
		for seed := from; seed < from+chunk; seed++ {
			live = append(live, seed)
		}
		r.drain()
		m.Pass(7 * 24 * time.Hour * chunk / time.Duration(pushes))
	}
	r.consistent()
	posts, records := 0, 0
	for collection, count := range map[string]*int{lexicon.NSIDPost: &posts, lexicon.NSIDLayer: &records} {
		if err := n.account.Each(t.Context(), collection, func(repo.Record) error { *count++; return nil }); err != nil {
			t.Error(err)
		}
	}
	if posts != pushes {
		t.Errorf("%d posts for %d pushes", posts, pushes)
	}
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("%d pushes, %d of them not deleted, %d pulls in %s; %d records, %d posts; heap %d MB, peak RSS %s", pushes, len(live), 10*pushes,
		time.Since(began).Round(time.Second), records, posts, mem.HeapAlloc>>20, peakRSS())
	if mem.HeapAlloc > 256<<20 {
		t.Errorf("the heap has %d MB", mem.HeapAlloc>>20)
	}
	cancel()
	ended.Wait()
	if _, err := numbers.Publish(t.Context()); err != nil {
		t.Error(err)
	}
	r.sumsAgree(numbers, &rediscounts.Sum{DB: rediscounts.New(client, ""), Now: m.Now})
	// Each push has its own tag, of which half are pulled; there are few repositories and days.
	news := server.Memory("*:children")
	uses := server.Memory("*:uses*") // of a digest and a tag for each push
	memory := server.Memory("*") - news - uses
	t.Logf("Redis: %d bytes, %d for each push, and %d of news, %d of last uses", memory, memory/int64(pushes), news, uses)
	if news > 10<<20 {
		t.Errorf("the news have %d bytes", news)
	}
	if most := 4096 + 2*120*int64(pushes); uses > most {
		t.Errorf("the last uses have %d bytes, want %d at most", uses, most)
	}
	if most := 50*(290+8*11) + 4096 + 20*int64(pushes); memory > most {
		t.Errorf("Redis has %d bytes, want %d at most", memory, most)
	}
	kept := sizesByPrefix(t, db, len(live))
	for _, c := range []interface{ Close() error }{account, j, db} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}

	// Apart from numbers and the newest rows, a push leaves a ledger entry until its image is
	// deleted, an entry in the post history, and a row of its post.
	if per := float64(kept["m"]) / float64(len(live)); per > 150 {
		t.Errorf("the ledger takes %.0f bytes for each manifest", per)
	}
	if per := float64(kept["a/p"]) / float64(pushes); per > 50 {
		t.Errorf("the post history takes %.0f bytes for each announcement", per)
	}
	if per := float64(kept["a/l"]+kept["a/i"]) / float64(pushes); per > 250 {
		t.Errorf("the rows of posts take %.0f bytes for each announcement", per)
	}
	if most := float64(pushrow.Kept+pushrow.PruneEvery) * 1000; float64(kept["p"]) > most {
		t.Errorf("rows take %d bytes", kept["p"])
	}
	if per := float64(kept["e"]) / float64(len(live)); per > 400 {
		t.Errorf("the versions take %.0f bytes for each image", per)
	}
	if per := float64(kept["u"]) / float64(len(live)); per > 300 {
		t.Errorf("the usage takes %.0f bytes for each image", per)
	}
	for prefix, size := range kept {
		if !strings.HasPrefix(prefix, "c/") && !slices.Contains([]string{"m", "a/p", "a/l", "a/i", "p", "e", "u", "b", "format"}, prefix) {
			t.Errorf("%s takes %d bytes and has no limit", prefix, size)
		}
	}
	disk := map[string]int64{}
	for _, name := range []string{"journal", "state", "hold"} {
		disk[name] = sizeOfFolder(t, filepath.Join(dir, name))
	}
	compact(t, filepath.Join(dir, "state"))
	disk["state compacted"] = sizeOfFolder(t, filepath.Join(dir, "state"))
	compact(t, filepath.Join(dir, "hold"))
	disk["hold compacted"] = sizeOfFolder(t, filepath.Join(dir, "hold"))
	for name, size := range disk {
		t.Logf("disk: %s: %d KB, %d bytes for each push, %d for each that is not deleted", name, size>>10, size/int64(pushes), size/int64(len(live)))
	}
	if disk["journal"] > 1<<30 {
		t.Errorf("the journal has %d MB", disk["journal"]>>20)
	}
}

// sumsAgree checks that the sum in Redis is the local numbers.
func (r *rig) sumsAgree(here, sum counts.Source) {
	r.t.Helper()
	want, err := here.Repositories(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	got, err := sum.Repositories(r.t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		r.t.Errorf("Redis: %v, %v; want %v", got, err, want)
	}
}

// sizesByPrefix adds up the sizes of keys and values by the prefix of the key.
func sizesByPrefix(t *testing.T, db *store.Store, live int) map[string]int64 {
	t.Helper()
	sizes, rows := map[string]int64{}, map[string]int64{}
	iter, err := db.NewIter(store.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer iter.Close()
	for iter.First(); iter.Valid(); iter.Next() {
		prefix, rest, _ := strings.Cut(string(iter.Key()), "/")
		if prefix == "a" || prefix == "c" || prefix == "k" {
			second, _, _ := strings.Cut(rest, "/")
			prefix += "/" + second
		}
		sizes[prefix] += int64(len(iter.Key()) + len(iter.Value()))
		rows[prefix]++
	}
	total := int64(0)
	for prefix, size := range sizes {
		total += size
		t.Logf("state: %-6s %7d rows, %9d bytes, %4d a row, %4d for each image", prefix, rows[prefix], size, size/rows[prefix], size/int64(live))
	}
	t.Logf("state: %d bytes, %d for each image", total, total/int64(live))
	return sizes
}

func sizeOfFolder(t *testing.T, dir string) (size int64) {
	t.Helper()
	kinds := map[string]int64{}
	defer func() { t.Logf("%s: bytes by kind of file: %v", filepath.Base(dir), kinds) }()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return nil
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) { // Deleted since the folder was listed.
			return nil
		}
		if err == nil {
			size += info.Size()
			kinds[filepath.Ext(d.Name())] += info.Size()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return size
}

// compact opens a closed database and compacts it.
func compact(t *testing.T, dir string) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	if err == nil {
		err = db.Compact(context.Background(), []byte{0}, []byte{255}, true)
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Errorf("compact %s: %v", dir, err)
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// peakRSS is the peak resident set size of this process.
func peakRSS() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
