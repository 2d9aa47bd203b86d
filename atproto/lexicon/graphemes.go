package lexicon

import "github.com/clipperhouse/uax29/v2/graphemes"

// Graphemes counts the extended grapheme clusters of Unicode 17 in a text, which are
// its user-perceived characters (https://www.unicode.org/reports/tr29). Limits like
// maxGraphemes are in this unit.
func Graphemes(text string) int {
	n := 0
	for all := graphemes.FromString(text); all.Next(); {
		n++
	}
	return n
}
