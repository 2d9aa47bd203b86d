package counts

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestDecodeUnknownClass(t *testing.T) {
	t.Parallel()
	if _, err := DecodeRow(binary.AppendUvarint(nil, 1<<(firstClass+len(Classes)))); err == nil {
		t.Error("a row with an unknown class is decoded: its number would be lost when the row is written")
	}
}

// TestLater: a time in the future is replaced by any other one, and never replaces one.
func TestLater(t *testing.T) {
	t.Parallel()
	const now, before, ahead = 1_000_000_000_000, 999_000_000_000, 1_000_100_000_000
	for _, c := range []struct{ old, new, want int64 }{
		{0, before, before}, {before, 0, before}, {before, now, now}, {now, before, now},
		{ahead, now, now}, {ahead, 0, ahead}, {before, ahead, before}, {0, ahead, ahead}, {ahead, ahead + 1, ahead + 1},
	} {
		if got := Later(c.old, c.new, time.UnixMilli(now)); got != c.want {
			t.Errorf("Later(%d, %d) = %d, want %d", c.old, c.new, got, c.want)
		}
	}
}

// FuzzRow: a row that can be decoded is unchanged by encoding it again.
func FuzzRow(f *testing.F) {
	f.Add(Row{}.Encode())
	f.Add(Row{LastPull: 1772625600000, LastPush: -1, Position: 9, TagState: DeletedOn(3), Counts: [len(Classes)]uint64{1, 300, 0, 1 << 63}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRow(b)
		if err != nil {
			return
		}
		if again, err := DecodeRow(r.Encode()); err != nil || again != r {
			t.Errorf("%x reads as %v and then as %v, %v", b, r, again, err)
		}
	})
}
