package counter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestStoredFormat has the keys and values of one push. Earlier and later versions of the
// program open the same data folder, so they must not change.
func TestStoredFormat(t *testing.T) {
	t.Parallel()
	push := counts.Fact{Repository: "team/app", Tag: "v1", Digest: digest(1), Class: counts.Push, Time: noon, Children: []string{digest(2)}}
	check := func(when string, r *replica, rows ...string) {
		t.Helper()
		want := slices.Concat([]string{
			`"c/c/aaaa\x00\x01" 0000000000000001`,
			`"c/h/\x9a\xcb.\xb2o\x19\x18\xd3;\xfc&\x95" a4a001`,
			`"c/k/\x00\x00\x00\x00\xcb\xc25J\u0493\x12(\xfb\xc25J\u0493\x12(" `,
		}, rows, []string{
			`"c/v/\xa1\xfdV\xa0:\xf5\xa2\x8f" a4a0019acb2eb26f1918d3`,
			`"c/w/\xe4o}tx8\x04\xfad\xe8'dB\x13.\xba\x99" ec861e00`,
			`"c/w/\xe4o}tx8\x04\xfat;\xfc&\x95\x94\xefd\x92" ec861e00`,
			fmt.Sprintf(`"c/x" %x`, `{"Since":"2026-03-04T12:00:00Z","Upto":{"1":1}}`),
		})
		if got := storedLines(t, r); !slices.Equal(got, want) {
			t.Errorf("%s: stored\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	local := newReplica(t, "aaaa", nil)
	local.fold(push)
	check("without Redis", local,
		`"c/r/team/app\x00a\x00\x01" 820480bce0c5cb3301`, `"c/r/team/app\x00d20516\x00\x01" 800401`, `"c/r/team/app\x00tv1\x00\x01" 88040101`)

	published := newReplica(t, "aaaa", redistest.Start(t).Client())
	published.fold(push)
	check("pending", published,
		`"c/u/team/app\x00a\x00fRUN" 820480bce0c5cb3301`, `"c/u/team/app\x00d20516\x00fRUN" 800401`, `"c/u/team/app\x00tv1\x00fRUN" 88040101`)
	published.publish()
	check("published", published,
		`"c/r/team/app\x00a\x00\x01" 860480bce0c5cb330101`, `"c/r/team/app\x00d20516\x00\x01" 800401`, `"c/r/team/app\x00tv1\x00\x01" 8c04010101`)
}

// storedLines lists the keys and values of the counter except the registration and the mark of the uses, with RUN in
// place of the id of the process.
func storedLines(t *testing.T, r *replica) (lines []string) {
	t.Helper()
	err := store.Scan(r.db, []byte("c/"), func(key, val []byte) error {
		if string(key) == registrationKey || string(key) == sharedUsesKey {
			return nil
		}
		name := string(key)
		if r.c.run != "" {
			name = strings.ReplaceAll(name, r.c.run, "RUN")
		}
		lines = append(lines, fmt.Sprintf("%+q %x", name, val))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestRowKeys(t *testing.T) {
	t.Parallel()
	for _, id := range []counts.ID{counts.OfRepository("a"), counts.OfTag("team/app", "v1"), counts.OfDay("team/app", 20516)} {
		for _, end := range []string{epoch(0).end(), epoch(300).end(), liveRun + rediscounts.NewID()} {
			if got, gotEnd, err := parseRow(rowKey(id) + end); err != nil || got != id || gotEnd != end {
				t.Errorf("parseRow(%q) = %v, %q, %v", rowKey(id)+end, got, gotEnd, err)
			}
		}
	}
	for _, bad := range []string{"", "a", "a\x00", "a\x00t", "a\x00tv1"} {
		if id, _, err := parseRow(bad); err == nil {
			t.Errorf("parseRow(%q) = %v, want an error", bad, id)
		}
	}
}
