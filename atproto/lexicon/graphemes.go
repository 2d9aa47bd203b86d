package lexicon

import "github.com/clipperhouse/uax29/v2/graphemes"

// Graphemes counts the characters of a text as a person sees them, the extended
// grapheme clusters of Unicode 17 (https://www.unicode.org/reports/tr29). Limits
// like maxGraphemes are in these.
func Graphemes(text string) int {
	n := 0
	for all := graphemes.FromString(text); all.Next(); {
		n++
	}
	return n
}
