package lexicon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestGraphemes checks Unicode's test cases, in which ÷ marks a boundary of a grapheme
// and × a position without one.
func TestGraphemes(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/GraphemeBreakTest.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		text, want := "", -1 // a text begins with ÷, too
		for mark := range strings.FieldsSeq(line) {
			switch mark {
			case "÷":
				want++
			case "×":
			default:
				c, err := strconv.ParseUint(mark, 16, 32)
				if err != nil {
					t.Fatal(err)
				}
				text += string(rune(c))
			}
		}
		if got := Graphemes(text); got != want {
			t.Errorf("%+q: got %d graphemes, want %d", text, got, want)
		}
		cases++
	}
	if cases < 700 {
		t.Errorf("%d cases, want 700 or more", cases)
	}
}

// A Devanagari conjunct is one grapheme of three code points, and counts as one.
func TestMaxGraphemes(t *testing.T) {
	t.Parallel()
	for n, valid := range map[int]bool{64: true, 65: false} {
		profile := fmt.Sprintf(`{"$type":"app.bsky.actor.profile","displayName":%q}`, strings.Repeat("क्ष", n))
		cbor, err := FromJSON([]byte(profile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Validate("app.bsky.actor.profile", cbor); (err == nil) != valid {
			t.Errorf("%d conjuncts: got %v", n, err)
		}
	}
}

func BenchmarkGraphemes(b *testing.B) {
	for name, text := range map[string]string{"ascii": strings.Repeat("pushed ", 430), "devanagari": strings.Repeat("क्ष", 300)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Graphemes(text)
			}
		})
	}
}
