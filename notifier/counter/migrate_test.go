package counter

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestMigrate opens a folder of the first version, also after an interrupted migration.
func TestMigrate(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	for _, stopped := range []bool{false, true} {
		r := newReplica(t, "aaaa", nil)
		b := r.db.NewBatch()
		set := func(key string, val []byte) {
			if err := b.Set([]byte(key), val); err != nil {
				t.Fatal(err)
			}
		}
		old := func(times [2]int64, counts ...uint64) []byte {
			val := binary.AppendVarint(binary.AppendVarint(nil, times[0]), times[1])
			for _, n := range counts {
				val = binary.AppendUvarint(val, n)
			}
			return val
		}
		b.DeleteRange([]byte("c/"), []byte("c0"))
		set("c/id", []byte("0123456789abcdef"))
		for _, bucket := range []string{"3", "c"} {
			name := "team/app-" + bucket
			for i, journal := range []string{"aaaa", "bbbb"} {
				for _, k := range []string{"a\x00", "tv1\x00", "d2026-03-04\x00"} {
					times := [2]int64{}
					if k == "a\x00" {
						times = [2]int64{noon.UnixMilli() - int64(i), 0}
					}
					set("c/n/"+bucket+name+"\x00"+k+journal, old(times, 5, 0, 0, 0, 0, 1))
					set("c/d/"+bucket+name+"\x00"+k+journal, make([]byte, 8))
				}
			}
			set("c/g/"+name+"\x00"+digest(1)+"\x00v1", []byte("2026-03-04"))
			set("c/p/"+bucket, []byte("gen"))
		}
		set("c/c/aaaa\x00\x01", binary.BigEndian.AppendUint64(nil, 12))
		if stopped {
			set(string(baseKey(counts.OfRepository("half"), 1)), counts.Row{Counts: [len(counts.Classes)]uint64{9}}.Encode())
		}
		if err := r.db.Commit(b, store.Sync); err != nil {
			t.Fatal(err)
		}
		r.cfg.Redis = rediscounts.New(client, fmt.Sprint(stopped))
		r.seq = 12
		for range 2 {
			r.reopen()
			want := map[string]map[counts.Class]int64{"team/app-3": {counts.Pull: 10, counts.Push: 2}, "team/app-c": {counts.Pull: 10, counts.Push: 2}}
			checkSource(t, r.c, want)
			r.publish()
			checkSource(t, &rediscounts.Sum{DB: r.cfg.Redis, Now: at(noon)}, want)
		}
		if got, _, _, _ := r.c.Repository(t.Context(), "team/app-3"); !got.LastPull.Equal(noon) {
			t.Errorf("the last pull was at %v, want %v", got.LastPull, noon)
		}
		if r.c.Latest(1) != 12 {
			t.Errorf("the cursor is %d, want 12", r.c.Latest(1))
		}
		r.fold(counts.Fact{Repository: "team/app-3", Tag: "latest", Digest: digest(1), Class: counts.Push, Time: noon})
		if got, _, _, _ := r.c.Repository(t.Context(), "team/app-3"); got.Counts[counts.Retag] != 1 {
			t.Errorf("the push of a known digest gives %v, want a retag", got.Counts)
		}
		for _, prefix := range oldPrefixes {
			if err := store.Scan(r.db, []byte(prefix), func(key, _ []byte) error { t.Errorf("key %q is left", key); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
}
