package lexicon

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// formatCase is a text, and whether it is valid in a format.
type formatCase struct {
	Format, Text string
	Valid        bool
}

func (c formatCase) check(t *testing.T) {
	t.Helper()
	if err := CheckFormat(c.Format, c.Text); (err == nil) != c.Valid {
		t.Errorf("%s %.100q: got %v, want valid %v", c.Format, c.Text, err, c.Valid)
	}
}

// TestFormatVectors checks the published vectors and our own cases, which override
// them. `make interop` runs the reference implementation's validators on both. Ours
// differ from them in cases with "reference": dates that do not exist are invalid, since
// readers in other languages cannot parse them; and a URI's scheme may have the
// characters + - . of RFC 3986, as the vectors require. CIDs that are not in canonical
// form are valid in the vectors, but invalid here and in the reference implementation.
func TestFormatVectors(t *testing.T) {
	t.Parallel()
	cases := vectors(t)
	raw, err := os.ReadFile("testdata/formats.json")
	if err != nil {
		t.Fatal(err)
	}
	var own []formatCase
	if err := json.Unmarshal(raw, &own); err != nil {
		t.Fatal(err)
	}
	for _, c := range own {
		cases[[2]string{c.Format, c.Text}] = c
	}
	count := map[string]int{}
	for _, c := range cases {
		c.check(t)
		count[c.Format]++
	}
	for format := range formats {
		if count[format] < 10 {
			t.Errorf("%s: %d cases, want 10 or more", format, count[format])
		}
	}
}

func vectors(t *testing.T) map[[2]string]formatCase {
	t.Helper()
	files, err := filepath.Glob("testdata/syntax/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	renamed := strings.NewReplacer("atidentifier", "at-identifier", "aturi", "at-uri", "recordkey", "record-key")
	cases := map[[2]string]formatCase{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(filepath.Base(file), "_")
		for text := range strings.SplitSeq(string(raw), "\n") {
			if text != "" && text[0] != '#' {
				c := formatCase{renamed.Replace(kind), text, strings.HasSuffix(file, "_valid.txt")}
				cases[[2]string{c.Format, c.Text}] = c
			}
		}
	}
	return cases
}

// TestFormatsRandom compares with the results of the reference implementation for the
// texts of TestFormatVectors with random changes.
func TestFormatsRandom(t *testing.T) {
	t.Parallel()
	name := os.Getenv("REFERENCE_FORMATS")
	if name == "" {
		t.Skip("needs the file that testdata/interop/formats.mjs writes, named by REFERENCE_FORMATS; `make interop` does that")
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); n++ {
		var c formatCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		c.check(t)
	}
	if n < 10_000 {
		t.Errorf("%d texts, want 10,000 or more", n)
	}
}

// FuzzFormats compares with indigo the formats that it implements in the same way.
func FuzzFormats(f *testing.F) {
	indigo := map[string]func(string) error{
		"at-identifier": func(s string) error { _, err := syntax.ParseAtIdentifier(s); return err },
		"did":           func(s string) error { _, err := syntax.ParseDID(s); return err },
		"handle":        func(s string) error { _, err := syntax.ParseHandle(s); return err },
		"nsid":          func(s string) error { _, err := syntax.ParseNSID(s); return err },
		"record-key":    func(s string) error { _, err := syntax.ParseRecordKey(s); return err },
		"tid":           func(s string) error { _, err := syntax.ParseTID(s); return err },
	}
	for _, text := range identifiers() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for format, check := range indigo {
			formatCase{format, text, check(text) == nil}.check(t)
		}
	})
}

// identifiers returns texts at the maximum lengths of formats.
func identifiers() []string {
	long := strings.Repeat("a", 63)
	many := strings.Repeat("a.", 150)
	return []string{
		"did:a:" + strings.Repeat("b", 2042), "did:a:" + strings.Repeat("b", 2043),
		long + ".b.c", long + "a.b.c", "a." + long + ".c", "a." + long + "a.c", "a.b." + long, "a.b." + long + "a",
		long + "." + long + "." + long + "." + strings.Repeat("a", 61), long + "." + long + "." + long + "." + strings.Repeat("a", 62),
		many[:253], many[:254] + "a", many + strings.Repeat("a", 17), many + strings.Repeat("a", 18),
		strings.Repeat("a", 512), strings.Repeat("a", 513), "3k2aaaaaaaaaa", "at://alice.test", "a.b.c", "self", "",
	}
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
