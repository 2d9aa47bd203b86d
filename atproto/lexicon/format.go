package lexicon

import (
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// indigo reads identifiers with regular expressions, which took a quarter of
// the time of a large applyWrites. Here the common formats are read by hand.
// Each check is true for exactly what indigo's is (FuzzFormats compares them);
// what it refuses goes to indigo all the same, for the words of the error.

// CheckNSID is syntax.ParseNSID, by https://atproto.com/specs/nsid.
func CheckNSID(text string) error {
	if isNSID(text) {
		return nil
	}
	_, err := syntax.ParseNSID(text)
	return err
}

// CheckRecordKey is syntax.ParseRecordKey, by
// https://atproto.com/specs/record-key.
func CheckRecordKey(text string) error {
	if isRecordKey(text) {
		return nil
	}
	_, err := syntax.ParseRecordKey(text)
	return err
}

// formats are the string formats of schemas that are checked here.
var formats = map[string]func(string) bool{
	"at-identifier": isAtIdentifier,
	"at-uri":        isATURI,
	"datetime":      isDatetime,
	"did":           isDID,
	"handle":        isHandle,
	"nsid":          isNSID,
	"record-key":    isRecordKey,
	"tid":           isTID,
}

func isAtIdentifier(text string) bool {
	if strings.HasPrefix(text, "did:") {
		return isDID(text)
	}
	return isHandle(text)
}

func isATURI(text string) bool {
	rest, ok := strings.CutPrefix(text, "at://")
	if !ok || len(text) > 8192 {
		return false
	}
	authority, path, hasPath := strings.Cut(rest, "/")
	collection, rkey, hasKey := strings.Cut(path, "/")
	return isAtIdentifier(authority) && (!hasPath || isNSID(collection)) && (!hasKey || isRecordKey(rkey))
}

func isDID(text string) bool {
	rest, ok := strings.CutPrefix(text, "did:")
	if !ok || len(text) > 2048 {
		return false
	}
	method, id, _ := strings.Cut(rest, ":")
	if method == "" || id == "" || strings.HasSuffix(id, ":") || strings.HasSuffix(id, "%") {
		return false
	}
	return all(method, lower) && all(id, alphanumeric|dot|dash|underscore|colon|percent)
}

func isHandle(text string) bool {
	if len(text) > 253 {
		return false
	}
	name, top, ok := cutLast(text)
	if !ok || !isLabel(top) || !letter.has(top[0]) {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isNSID(text string) bool {
	if len(text) > 317 {
		return false
	}
	authority, name, _ := cutLast(text)
	if name == "" || len(name) > 63 || !letter.has(name[0]) || !all(name, alphanumeric) {
		return false
	}
	labels := 0
	for label := range strings.SplitSeq(authority, ".") {
		if !isLabel(label) {
			return false
		}
		labels++
	}
	return labels >= 2 && letter.has(authority[0])
}

// cutLast cuts at the last dot.
func cutLast(text string) (before, after string, ok bool) {
	i := strings.LastIndexByte(text, '.')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

// isLabel is true for one part of a domain name.
func isLabel(text string) bool {
	return text != "" && len(text) <= 63 && text[0] != '-' && text[len(text)-1] != '-' && all(text, alphanumeric|dash)
}

func isRecordKey(text string) bool {
	return text != "" && len(text) <= 512 && text != "." && text != ".." &&
		all(text, alphanumeric|dot|dash|underscore|colon|tilde)
}

func isTID(text string) bool {
	return len(text) == 13 && text[0] <= 'j' && all(text, tidDigit)
}

// isDatetime leaves the calendar to time.Parse, which takes more forms than the
// protocol does.
func isDatetime(text string) bool {
	const form = "9999-19-39T29:69:69"
	if len(text) > 64 || len(text) <= len(form) || strings.HasSuffix(text, "-00:00") {
		return false
	}
	if !shaped(text[:len(form)], form) {
		return false
	}
	zone := text[len(form):]
	if zone[0] == '.' || zone[0] == ',' {
		digits := 1
		for digits < len(zone) && digit.has(zone[digits]) {
			digits++
		}
		if digits == 1 || digits > 21 {
			return false
		}
		zone = zone[digits:]
	}
	if zone != "Z" && !shaped(zone, "+29:59") && !shaped(zone, "-29:59") {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && !at.Before(yearZero)
}

var yearZero = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)

// shaped compares text with a form, in which a digit stands for itself and
// those below it.
func shaped(text, form string) bool {
	if len(text) != len(form) {
		return false
	}
	for i := range len(form) {
		if text[i] != form[i] && (!digit.has(text[i]) || !digit.has(form[i]) || text[i] > form[i]) {
			return false
		}
	}
	return true
}

// class is a set of kinds of ASCII characters.
type class uint16

const (
	upper class = 1 << iota
	lower
	digit
	dot
	dash
	underscore
	colon
	percent
	tilde
	tidDigit // 2 to 7 and a to z

	letter       = upper | lower
	alphanumeric = letter | digit
)

var classes = func() (of [256]class) {
	for c := range 26 {
		of['A'+c] = upper
		of['a'+c] = lower | tidDigit
	}
	for c := byte('0'); c <= '9'; c++ {
		of[c] = digit
	}
	for c := byte('2'); c <= '7'; c++ {
		of[c] |= tidDigit
	}
	of['.'], of['-'], of['_'], of[':'], of['%'], of['~'] = dot, dash, underscore, colon, percent, tilde
	return of
}()

func (in class) has(c byte) bool { return classes[c]&in != 0 }

func all(text string, in class) bool {
	for i := range len(text) {
		if !in.has(text[i]) {
			return false
		}
	}
	return true
}
