package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

var ctx = context.Background()

func open(t *testing.T, disk *journaltest.Disk) *journal.Journal {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: "j", FS: disk, SegmentSize: 600})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t *testing.T, j *journal.Journal, s journal.Stream, n int) {
	t.Helper()
	for range n {
		if _, err := j.Append(ctx, s, 1, []byte("payload")); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
}

func seqs(t *testing.T, j *journal.Journal, s journal.Stream) (out []uint64) {
	t.Helper()
	for after := uint64(0); ; after = out[len(out)-1] {
		entries, err := j.Read(s, after, 1<<30, 1<<30)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		if len(entries) == 0 {
			return out
		}
		for _, e := range entries {
			out = append(out, e.Seq)
		}
	}
}

func upTo(n int) (out []uint64) {
	for i := range n {
		out = append(out, uint64(i+1))
	}
	return out
}

func lastSegment(disk *journaltest.Disk, s journal.Stream) string {
	var last string
	for _, name := range disk.Files() {
		if strings.HasPrefix(filepath.Base(name), s.String()+"-") {
			last = name
		}
	}
	return last
}

// A model is what the journal owes after a crash.
type model struct {
	disk    *journaltest.Disk
	j       *journal.Journal
	r       *rand.Rand
	pushes  map[uint64]string // acknowledged or read
	pulls   map[uint64]string // appended
	durable map[uint64]string // pulls read
	given   map[string]string // id and number of what was ever read → payload
	open    map[string]bool   // payloads of open intents, and whether they are known to be durable
	ended   map[string]bool   // likewise of ended ones
	count   int
}

// TestCrashes runs random histories with kills and power cuts between them.
func TestCrashes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &model{disk: journaltest.NewDisk(), r: rand.New(rand.NewPCG(seed, 1)), given: map[string]string{},
				pushes: map[uint64]string{}, pulls: map[uint64]string{}, durable: map[uint64]string{}, open: map[string]bool{}, ended: map[string]bool{}}
			for range 12 {
				m.j = open(t, m.disk)
				m.check(t)
				for range m.r.IntN(60) {
					m.step(t)
				}
				m.crash(t)
			}
		})
	}
}

func (m *model) step(t *testing.T) {
	m.count++
	payload := fmt.Sprintf("%d %s", m.count, strings.Repeat("x", m.r.IntN(200)))
	switch m.r.IntN(6) {
	case 0:
		seq, err := m.j.Append(ctx, journal.Pushes, uint64(m.count), []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		m.pushed(seq, payload)
	case 1:
		in, err := m.j.Begin(ctx, uint64(m.count), []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		m.open[payload] = false
		m.endIntent(t, in, payload)
	case 2, 3:
		seq, err := m.j.Append(ctx, journal.Pulls, uint64(m.count), []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		m.pulls[seq] = payload
	case 4:
		m.read(t, journal.Pulls, m.j.Cursor(journal.Pulls, "r"), m.r.IntN(10))
	case 5:
		s := journal.Stream(m.r.IntN(2))
		entries := m.read(t, s, m.j.Cursor(s, "r"), m.r.IntN(10))
		if len(entries) > 0 {
			if err := m.j.SetCursor(s, "r", entries[len(entries)-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// endIntent completes an intent, or abandons it, or leaves it open.
func (m *model) endIntent(t *testing.T, in journal.Intent, payload string) {
	switch m.r.IntN(4) {
	case 0:
		if err := m.j.Abandon(in); err != nil {
			t.Fatal(err)
		}
		delete(m.open, payload)
		m.ended[payload] = false
	case 1, 2:
		seq, err := m.j.Complete(ctx, in, uint64(m.count), []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		delete(m.open, payload)
		m.pushed(seq, payload)
		m.ended[payload] = true
	}
}

// pushed notes an acknowledged push, before which all is durable.
func (m *model) pushed(seq uint64, payload string) {
	m.pushes[seq] = payload
	m.allDurable()
}

func (m *model) allDurable() {
	for _, intents := range []map[string]bool{m.open, m.ended} {
		for payload := range intents {
			intents[payload] = true
		}
	}
}

func (m *model) read(t *testing.T, s journal.Stream, after uint64, n int) []journal.Entry {
	entries, err := m.j.Read(s, after, n, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := fmt.Sprint(m.j.ID(), s, e.Seq)
		if old, ok := m.given[name]; ok && old != string(e.Payload) {
			t.Fatalf("%s was %q and is %q", name, old, e.Payload)
		}
		m.given[name] = string(e.Payload)
		if s == journal.Pulls {
			m.durable[e.Seq] = string(e.Payload)
		}
	}
	return entries
}

func (m *model) crash(t *testing.T) {
	order := m.j.LastOrder()
	if m.r.IntN(2) == 0 {
		m.disk = m.disk.Kill()
		m.j.Close()
		j := open(t, m.disk.Kill())
		if j.LastOrder() != order {
			t.Fatalf("LastOrder = %d after a kill, want %d", j.LastOrder(), order)
		}
		return
	}
	old := m.disk
	m.disk = old.PowerCut(m.r)
	if m.r.IntN(4) == 0 {
		m.disk = old.PowerCut(nil)
	}
	m.j.Close()
	m.pulls = maps.Clone(m.durable)
	for _, intents := range []map[string]bool{m.open, m.ended} {
		maps.DeleteFunc(intents, func(_ string, durable bool) bool { return !durable })
	}
}

func (m *model) check(t *testing.T) {
	t.Helper()
	for s, want := range map[journal.Stream]map[uint64]string{journal.Pushes: m.pushes, journal.Pulls: m.pulls} {
		cursor := m.j.Cursor(s, "r")
		got := map[uint64]string{}
		at := uint64(0)
		for _, e := range m.read(t, s, 0, 1<<30) {
			if e.Seq <= at {
				t.Fatalf("event %d of %s follows %d", e.Seq, s, at)
			}
			at = e.Seq
			got[at] = string(e.Payload)
		}
		for seq, payload := range want {
			if seq > cursor && got[seq] != payload {
				t.Fatalf("event %d of %s is %q, want %q", seq, s, got[seq], payload)
			}
		}
	}
	found := map[string]bool{}
	for _, u := range m.j.Unresolved() {
		payload := string(u.Payload)
		if found[payload] {
			t.Fatalf("intent %q is open twice", payload)
		}
		found[payload] = true
		if _, ok := m.ended[payload]; ok {
			t.Fatalf("intent %q is open again", payload)
		}
	}
	for payload := range m.open {
		if !found[payload] {
			t.Fatalf("intent %q is forgotten", payload)
		}
	}
	m.open = found // and Open has made it all durable
	m.allDurable()
	for _, u := range m.j.Unresolved() {
		m.endIntent(t, u.Intent, string(u.Payload))
	}
}

// TestCrashWhileMoving looks at every step of a history in which intents move
// from segment to segment: a process that dies there, at any byte, or loses
// its power finds each open intent open once, and no ended one.
func TestCrashWhileMoving(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	if err := j.Register(journal.Pushes, "r"); err != nil {
		t.Fatal(err)
	}
	type moment struct {
		disk  *journaltest.Disk
		open  map[string]bool // durably
		ended map[string]bool // likewise
		last  uint64
		how   string
	}
	var mu sync.Mutex // the journal works in the background
	var moments []moment
	known := moment{open: map[string]bool{}, ended: map[string]bool{}}
	note := func(d *journaltest.Disk, how string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		moments = append(moments, moment{d, maps.Clone(known.open), maps.Clone(known.ended), known.last, fmt.Sprintf(how, args...)})
	}
	r := rand.New(rand.NewPCG(1, 2))
	disk.Watch(func(op journaltest.Op, name string) {
		note(disk.Kill(), "kill before %s %s", op, name)
		note(disk.PowerCut(nil), "power cut before %s %s", op, name)
		note(disk.PowerCut(r), "torn power cut before %s %s", op, name)
		if op != journaltest.Sync {
			return
		}
		killed := disk.Kill()
		raw := killed.Bytes(name)
		for cut := killed.Durable(name); cut < len(bytes.TrimRight(raw, "\x00")); cut++ {
			torn := disk.Kill()
			torn.Put(name, raw[:cut])
			note(torn, "kill in a write, %d bytes of %s are left", cut, name)
		}
	})
	intents := map[string]journal.Intent{}
	for i := range 60 {
		switch name := fmt.Sprint("intent ", i); i % 10 {
		case 0:
			in, err := j.Begin(ctx, 1, []byte(name))
			if err != nil {
				t.Fatal(err)
			}
			intents[name] = in
		case 7: // the one of three tens ago, which has moved
			old := fmt.Sprint("intent ", i-37)
			in, ok := intents[old]
			if !ok {
				continue
			}
			mu.Lock()
			delete(known.open, old)
			mu.Unlock()
			seq, err := j.Complete(ctx, in, 1, []byte(old))
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			known.last, known.ended[old] = seq, true
			mu.Unlock()
			delete(intents, old)
		default:
			seq, err := j.Append(ctx, journal.Pushes, 1, []byte("payload"))
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			known.last = seq
			for name := range intents {
				known.open[name] = true
			}
			mu.Unlock()
			if i%3 == 0 {
				if err := j.SetCursor(journal.Pushes, "r", seq); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for j.Status(journal.Pushes).Segments > 3 { // it is deleting still
		time.Sleep(time.Millisecond)
	}
	if st := j.Status(journal.Pushes); st.First < 20 || len(known.open) != 3 || len(known.ended) != 3 {
		t.Fatalf("the test does not test: %+v, open %v, ended %v", st, known.open, known.ended)
	}
	disk.Watch(nil)
	for _, m := range moments {
		j := open(t, m.disk)
		found := map[string]bool{}
		for _, u := range j.Unresolved() {
			if name := string(u.Payload); found[name] || m.ended[name] {
				t.Errorf("%s: %s is open twice or again", m.how, name)
			} else {
				found[name] = true
			}
		}
		for name := range m.open {
			if !found[name] {
				t.Errorf("%s: %s is forgotten", m.how, name)
			}
		}
		if st := j.Status(journal.Pushes); st.Last < m.last {
			t.Errorf("%s: %d of %d events", m.how, st.Last, m.last)
		}
		j.Close()
		if t.Failed() {
			return
		}
	}
}

// TestTornAnywhere cuts the last segment at every byte.
func TestTornAnywhere(t *testing.T) {
	t.Parallel()
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
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
				t.Fatalf("%s cut at %d: %d events, one byte more left %d", s, cut, len(got), kept)
			}
			kept = len(got)
			add(t, j, s, 2)
			j.Close()
			if got := seqs(t, open(t, torn), s); !slices.Equal(got, upTo(kept+2)) {
				t.Fatalf("%s cut at %d: events %v after two more", s, cut, got)
			}
		}
		if kept >= before-3 || kept == 0 {
			t.Errorf("%d of %d events outside the last segment: the test does not test", kept, before)
		}
	}
}

// TestFlippedAnywhere damages every byte of three segments in turn. Only in
// the very last record of a stream can damage look like a torn tail, and what
// lies behind the records is of no meaning.
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

// Pushes are written into zeros that are there already, which a restart takes
// for what they are.
func TestReserved(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	var logged strings.Builder
	config := journal.Config{Dir: "j", FS: disk, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	for round := range 3 {
		j, err := journal.Open(config)
		if err != nil {
			t.Fatal(err)
		}
		add(t, j, journal.Pushes, 1)
		size := len(disk.Bytes(lastSegment(disk, journal.Pushes)))
		add(t, j, journal.Pushes, 100)
		if after := len(disk.Bytes(lastSegment(disk, journal.Pushes))); after != size {
			t.Errorf("the file grew from %d to %d bytes with the events", size, after)
		}
		if got := seqs(t, j, journal.Pushes); !slices.Equal(got, upTo(101*(round+1))) {
			t.Errorf("round %d: events %v", round, got)
		}
		j.Close()
	}
	if logged.Len() > 0 {
		t.Errorf("it had something to say: %s", &logged)
	}
}

// TestMovedAway does what a CorruptError tells the operator to do.
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

func TestNewerFormatAndStrangers(t *testing.T) {
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
			raw[8]++ // the header's format, with a fitting checksum
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

// TestRestoredBehindCursor is a snapshot of the segments under a newer state.
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
		t.Errorf("id %s stayed, or order number %d became %d", id, order, j.LastOrder())
	}
	if seq, err := j.Append(ctx, journal.Pulls, 1, nil); seq != 8 || err != nil {
		t.Errorf("Append = %d, %v; want 8, as 7 was durable once", seq, err)
	}
	id = j.ID()
	j.Close()
	if j = open(t, snapshot); j.ID() != id {
		t.Error("the id changed once more")
	}
	if got := seqs(t, j, journal.Pulls); !slices.Equal(got, []uint64{8}) { // the reader has passed the others
		t.Errorf("events %v", got)
	}
}

// FuzzOpen puts arbitrary bytes behind what is durable, or cuts it.
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

// TestFolder looks at real files: modes, and no strangers among them.
func TestFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "journal")
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, journal.Pushes, 1)
	add(t, j, journal.Pulls, 1)
	j.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if want := []string{"journal.json", "pulls-0000000001.seg", "pushes-0000000001.seg"}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
}
