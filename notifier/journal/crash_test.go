package journal_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// A model has the events and intents that the journal must return after a crash.
type model struct {
	disk    *journaltest.Disk
	j       *journal.Journal
	r       *rand.Rand
	pushes  map[uint64]string // acknowledged or read
	pulls   map[uint64]string // appended
	durable map[uint64]string // pulls read
	given   map[string]string // payload of each event that was ever read, by journal id, stream and number
	open    map[string]bool   // payloads of open intents, and whether they are known to be durable
	ended   map[string]bool   // the same for ended intents
	count   int
}

// TestCrashes runs random histories with kills and power cuts between them.
func TestCrashes(t *testing.T) {
	t.Parallel()
	for seed := range race.Some(uint64(100)) {
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

// endIntent completes an intent, abandons it or leaves it open.
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

// pushed adds an acknowledged push, with which everything before it is durable.
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
			t.Fatalf("event %s was %q and is %q now", name, old, e.Payload)
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
			t.Fatalf("intent %q is open again after it was ended", payload)
		}
	}
	for payload := range m.open {
		if !found[payload] {
			t.Fatalf("intent %q is missing", payload)
		}
	}
	m.open = found // Open has made them durable
	m.allDurable()
	for _, u := range m.j.Unresolved() {
		m.endIntent(t, u.Intent, string(u.Payload))
	}
}
