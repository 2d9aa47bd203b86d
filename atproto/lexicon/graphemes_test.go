package lexicon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestGraphemes checks Unicode's own cases, in which ÷ stands where a grapheme
// ends and × where none does.
func TestGraphemes(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/GraphemeBreakTest.txt")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
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
		tried++
	}
	if tried < 700 {
		t.Errorf("%d cases", tried)
	}
}

// A name of 64 Devanagari conjuncts is one character each, and 3 code points.
func TestGraphemesOfARecord(t *testing.T) {
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
