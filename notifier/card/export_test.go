package card

import "testing"

// What the golden test shares with those here. It is in a package of its own because posttest
// imports this one.
var (
	Decode     = decode
	CheckTexts = func(t testing.TB, f Facts) { checkTexts(t, f, layout(t, f)) }
)
