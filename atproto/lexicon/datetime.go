package lexicon

import "time"

// Datetime returns a time in the format datetime, in UTC with milliseconds
// (https://atproto.com/specs/lexicon#datetime).
func Datetime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
