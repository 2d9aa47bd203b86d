package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// TestTornAnywhere truncates the last segment at every byte.
func TestTornAnywhere(t *testing.T) {
	t.Parallel()
	for _, s := range streams {
		disk := journaltest.NewDisk()
		j := open(t, disk)
		add(t, j, s, 15)
		before := int(j.Status(s).Last)
		name := lastSegment(disk, s)
		raw := disk.Bytes(name)
		kept := -1
		for cut := len(raw); cut >= 0; cut-- {
			torn := disk.Kill()
			torn.Put(name, raw[:cut])
			j := open(t, torn)
			got := seqs(t, j, s)
			if !slices.Equal(got, upTo(len(got))) || len(got) > before {
				t.Fatalf("%s cut at %d: events %v", s, cut, got)
			}
			if kept >= 0 && kept-len(got) > 1 {
				t.Fatalf("%s cut at %d: %d events, but %d with one byte more", s, cut, len(got), kept)
			}
			kept = len(got)
			add(t, j, s, 2)
			j.Close()
			if got := seqs(t, open(t, torn), s); !slices.Equal(got, upTo(kept+2)) {
				t.Fatalf("%s cut at %d: events %v after two appends, want 1 to %d", s, cut, got, kept+2)
			}
		}
		if kept >= before-3 || kept == 0 {
			t.Errorf("%d of %d events are before the last segment, want some before and at least 4 in it", kept, before)
		}
	}
}

// TestFlippedAnywhere damages each byte of each segment in turn. Only damage in the
// last record of a stream can look like a torn tail; bytes after the records have no
// meaning.
func TestFlippedAnywhere(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	add(t, j, journal.Pushes, 25)
	j.Close()
	var names []string
	for _, name := range disk.Files() {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	const record = 44 + len("payload")
	for i, name := range names {
		raw := disk.Bytes(name)
		end := len(bytes.TrimRight(raw, "\x00"))
		for at := range raw {
			bad := slices.Clone(raw)
			bad[at] ^= 0x40
			damaged := disk.Kill()
			damaged.Put(name, bad)
			j, err := journal.Open(journal.Config{Dir: "j", FS: damaged, SegmentSize: 600})
			want := 25
			if last := i == len(names)-1; last && at >= end-record && at < end {
				want--
			}
			if at >= end || want < 25 {
				if err != nil {
					t.Fatalf("%s flipped at %d: %v", name, at, err)
				}
				if got := seqs(t, j, journal.Pushes); !slices.Equal(got, upTo(want)) {
					t.Fatalf("%s flipped at %d: events %v", name, at, got)
				}
				j.Close()
				continue
			}
			var corrupt *journal.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("%s flipped at %d of %d: %v, want a CorruptError", name, at, len(raw), err)
			}
			if corrupt.File != name || corrupt.Offset > int64(at) || corrupt.Offset+int64(record) <= int64(at) && at >= 80 {
				t.Fatalf("%s flipped at %d: %v", name, at, err)
			}
		}
	}
}

// Pushes are written into preallocated zeros, which are no damage to a restart.
func TestReserved(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	var logged strings.Builder
	config := journal.Config{Dir: "j", FS: disk, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	for round := range 3 {
		j := openWith(t, config)
		add(t, j, journal.Pushes, 1)
		size := len(disk.Bytes(lastSegment(disk, journal.Pushes)))
		add(t, j, journal.Pushes, 100)
		if after := len(disk.Bytes(lastSegment(disk, journal.Pushes))); after != size {
			t.Errorf("the file grew from %d to %d bytes, want a preallocated file", size, after)
		}
		if got := seqs(t, j, journal.Pushes); !slices.Equal(got, upTo(101*(round+1))) {
			t.Errorf("round %d: events %v", round, got)
		}
		j.Close()
	}
	if logged.Len() > 0 {
		t.Errorf("it logged %s", &logged)
	}
}

// TestMovedAway moves each segment away, as a CorruptError tells the operator to do.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	if err := j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	add(t, j, journal.Pushes, 40)
	if err := j.SetCursor(journal.Pushes, "reader", 2); err != nil {
		t.Fatal(err)
	}
	id := j.ID()
	j.Close()
	var names []string
	for _, name := range disk.Files() {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	for i, name := range names {
		disk := disk.Kill()
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		j := open(t, disk)
		got := seqs(t, j, journal.Pushes)
		if len(got) >= 40 || len(got) < 25 || !slices.IsSorted(got) {
			t.Errorf("without %s: events %v", name, got)
		}
		newID := j.ID() != id
		if last := i == len(names)-1; newID != last {
			t.Errorf("without %s: new id %v, want %v", name, newID, last)
		}
		seq, err := j.Append(ctx, journal.Pushes, 1, nil)
		if err != nil || !newID && seq != 41 {
			t.Errorf("without %s: event %d, %v", name, seq, err)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	add(t, j, journal.Pushes, 1)
	j.Close()
	other := journaltest.NewDisk()
	j = open(t, other)
	add(t, j, journal.Pushes, 1)
	j.Close()
	name := lastSegment(disk, journal.Pushes)

	for want, change := range map[string]func(d *journaltest.Disk){
		"belongs to another journal":          func(d *journaltest.Disk) { d.Put(name, other.Bytes(name)) },
		"it is a segment of the other stream": func(d *journaltest.Disk) { d.Put("j/pulls-0000000001.seg", d.Bytes(name)) },
		"checksum is wrong":                   func(d *journaltest.Disk) { d.Put("j/journal.json", append(d.Bytes("j/journal.json"), ' ')) },
		"use the version that wrote it": func(d *journaltest.Disk) {
			raw := d.Bytes(name)
			raw[8]++ // the format in the header, then its checksum
			binary.LittleEndian.PutUint32(raw[76:], crc32.Checksum(raw[:76], crc32.MakeTable(crc32.Castagnoli)))
			d.Put(name, raw)
		},
		"has format 2": func(d *journaltest.Disk) {
			text, _, _ := bytes.Cut(d.Bytes("j/journal.json"), []byte("\ncrc32c"))
			text = bytes.Replace(text, []byte(`"format": 1`), []byte(`"format": 2`), 1)
			sum := crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))
			d.Put("j/journal.json", fmt.Appendf(text, "\ncrc32c %08x\n", sum))
		},
		"it is missing, but there is": func(d *journaltest.Disk) { d.Remove("j/journal.json") },
	} {
		d := disk.Kill()
		change(d)
		if _, err := journal.Open(journal.Config{Dir: "j", FS: d}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v, want %q", err, want)
		}
	}
}

// TestRestoredBehindCursor restores older segments than journal.json.
func TestRestoredBehindCursor(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	add(t, j, journal.Pulls, 3)
	snapshot := disk.Kill()
	add(t, j, journal.Pulls, 4)
	seqs(t, j, journal.Pulls)
	if err := j.SetCursor(journal.Pulls, "reader", 6); err != nil {
		t.Fatal(err)
	}
	id, order := j.ID(), j.LastOrder()
	j.Close()
	snapshot.Put("j/journal.json", disk.Bytes("j/journal.json"))
	j = open(t, snapshot)
	if j.ID() == id || j.LastOrder() != order {
		t.Errorf("id %s became %s, order number %d became %d; want a new id and the same order number", id, j.ID(), order, j.LastOrder())
	}
	if seq, err := j.Append(ctx, journal.Pulls, 1, nil); seq != 8 || err != nil {
		t.Errorf("Append = %d, %v; want 8, since 7 was durable", seq, err)
	}
	id = j.ID()
	j.Close()
	if j = open(t, snapshot); j.ID() != id {
		t.Error("the id changed again at the next start")
	}
	if got := seqs(t, j, journal.Pulls); !slices.Equal(got, []uint64{8}) { // the reader has passed the others
		t.Errorf("events %v, want 8", got)
	}
}

// FuzzOpen truncates the durable bytes of a segment and appends arbitrary ones.
func FuzzOpen(f *testing.F) {
	disk := journaltest.NewDisk()
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600})
	if err != nil {
		f.Fatal(err)
	}
	for range 13 {
		if _, err := j.Append(ctx, journal.Pushes, 1, []byte("payload")); err != nil {
			f.Fatal(err)
		}
	}
	for range 13 {
		if _, err := j.Append(ctx, journal.Pulls, 1, []byte("payload")); err != nil {
			f.Fatal(err)
		}
	}
	j.Close()
	names := [2]string{lastSegment(disk, journal.Pushes), lastSegment(disk, journal.Pulls)}
	whole := [2][]byte{disk.Bytes(names[0]), disk.Bytes(names[1])}
	f.Add(uint8(0), uint16(0), []byte{})
	f.Add(uint8(1), uint16(30), []byte("\xf5\xc1\x01\x00"))
	f.Add(uint8(0), uint16(0), whole[0][80:])
	f.Add(uint8(1), uint16(500), whole[1][:90])
	f.Fuzz(func(t *testing.T, stream uint8, cut uint16, tail []byte) {
		s := journal.Stream(stream & 1)
		disk := disk.Kill()
		raw := whole[s][:len(whole[s])-min(int(cut), len(whole[s]))]
		disk.Put(names[s], append(slices.Clone(raw), tail...))
		j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600})
		if err != nil {
			var corrupt *journal.CorruptError
			if cut == 0 || !errors.As(err, &corrupt) {
				t.Fatalf("Open: %v", err)
			}
			return
		}
		defer j.Close()
		if got := seqs(t, j, s); cut == 0 && !slices.Equal(got, upTo(13)) {
			t.Fatalf("events %v, want 13", got)
		}
		if got := seqs(t, j, 1-s); !slices.Equal(got, upTo(13)) {
			t.Fatalf("events %v of the other stream, want 13", got)
		}
		if _, err := j.Append(ctx, s, 1, nil); err != nil {
			t.Fatal(err)
		}
	})
}
