package lexicon

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// theirs are indigo's checks for the formats that are checked here.
var theirs = map[string]func(string) error{
	"at-identifier": func(s string) error { _, err := syntax.ParseAtIdentifier(s); return err },
	"at-uri":        func(s string) error { _, err := syntax.ParseATURI(s); return err },
	"datetime":      func(s string) error { _, err := syntax.ParseDatetime(s); return err },
	"did":           func(s string) error { _, err := syntax.ParseDID(s); return err },
	"handle":        func(s string) error { _, err := syntax.ParseHandle(s); return err },
	"nsid":          func(s string) error { _, err := syntax.ParseNSID(s); return err },
	"record-key":    func(s string) error { _, err := syntax.ParseRecordKey(s); return err },
	"tid":           func(s string) error { _, err := syntax.ParseTID(s); return err },
}

func sameAsTheirs(t *testing.T, text string) {
	t.Helper()
	for name, check := range formats {
		if got, want := check(text), theirs[name](text); got != (want == nil) {
			t.Errorf("%s %q: got %v, indigo says %v", name, text, got, want)
		}
	}
}

// identifiers are some of each format, and some at its limits.
func identifiers() []string {
	long := strings.Repeat("a", 63)
	many := strings.Repeat("a.", 150)
	return []string{
		"", "a", ".", "..", "...", "-", "a.b", "a..b", ".a.b", "a.b.", "a-.b.c", "-a.b.c", "a.b-.c", "a.b.c-d", "a.b.3", "3.b.c", "a.3.c",
		"at://", "at:///", "at://did:plc:z72i7hdynmk6r22z27h6tvur", "at://did:web:a%3A1/a.b.c/", "at://did:web:localhost%3A5000/io.atcr.hold.layer/3k2aaaaaaaaaa",
		"at://alice.test/io.atcr.manifest/sha", "at://alice.test/io.atcr.manifest", "at://alice.test/", "at://alice.test//a", "at://alice.test/a.b.c/.", "at://alice.test/a.b.c/d/e",
		"AT://alice.test", "at://alice.test/a.b.c/" + strings.Repeat("a", 512), "at://alice.test/a.b.c/" + strings.Repeat("a", 513),
		"did:", "did::", "did:a:", "did:a:b", "did:a:b:", "did:a:b%", "did:a:%b", "did:a::b", "did:A:b", "did:a1:b", "did:plc:z72i7hdynmk6r22z27h6tvu-", "did:plc:é72i7hdynmk6r22z27h6tvu",
		"did:a:" + strings.Repeat("b", 2042), "did:a:" + strings.Repeat("b", 2043),
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05,6Z", "2026-01-02T03:04:05x6Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05é1Z", "2026-01-02T03:04:05\n1Z",
		"2026-01-02T03:04:05.12345678901234567890Z", "2026-01-02T03:04:05.123456789012345678901Z", "2026-01-02T03:04:60Z", "2026-02-30T03:04:05Z", "2026-19-02T03:04:05Z", "2026-01-02T24:00:00Z",
		"2026-01-02T03:04:05+01:00", "2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05+29:59", "2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+23:60", "2026-01-02T03:04:05z",
		"0000-01-01T00:00:00Z", "0000-01-01T00:00:00+01:00", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05+0100", "2026-01-02T03:04:05\xff1Z",
		"3k2aaaaaaaaaa", "jzzzzzzzzzzzz", "kzzzzzzzzzzzz", "3k2aaaaaaaaa1", "3k2aaaaaaaaa8", "3K2aaaaaaaaaa", "3k2aaaaaaaaa\n", "2222222222222", "7777777777777",
		long + ".b.c", long + "a.b.c", "a." + long + ".c", "a." + long + "a.c", "a.b." + long, "a.b." + long + "a", long + "." + long + "." + long + "." + strings.Repeat("a", 61), long + "." + long + "." + long + "." + strings.Repeat("a", 62),
		many[:253], many[:254] + "a", many + strings.Repeat("a", 17), many + strings.Repeat("a", 18), "self", "a~b", "a:b_c-d.e", "é", "a\n", "a/b", strings.Repeat("a", 512), strings.Repeat("a", 513), "a%b",
	}
}

// TestFormats also changes one or two characters of each at random.
func TestFormats(t *testing.T) {
	t.Parallel()
	const characters = "\x00\n %+,-./019:ATZ_ajkz~é\xff"
	random := rand.New(rand.NewPCG(1, 2))
	for _, text := range identifiers() {
		sameAsTheirs(t, text)
		for range 300 {
			changed := []byte(text)
			for range 1 + random.IntN(2) {
				at, c := random.IntN(len(changed)+1), characters[random.IntN(len(characters))]
				switch i := random.IntN(3); {
				case i == 0:
					changed = append(changed[:at], append([]byte{c}, changed[at:]...)...)
				case at < len(changed) && i == 1:
					changed[at] = c
				case at < len(changed):
					changed = append(changed[:at], changed[at+1:]...)
				}
			}
			sameAsTheirs(t, string(changed))
		}
	}
	if len(formats) != len(theirs) {
		t.Errorf("%d formats, %d compared", len(formats), len(theirs))
	}
}

func FuzzFormats(f *testing.F) {
	for _, text := range identifiers() {
		f.Add(text)
	}
	f.Fuzz(sameAsTheirs)
}

func BenchmarkATURI(b *testing.B) {
	const text = "at://did:web:localhost%3A5000/io.atcr.manifest/9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			if !isATURI(text) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("indigo", func(b *testing.B) {
		for b.Loop() {
			if _, err := syntax.ParseATURI(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
