package lexicon

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// The string formats of https://atproto.com/specs/lexicon#string-formats. Each function
// accepts the strings that the reference implementation accepts in a record
// (isStringFormat of its package @atproto/lex-schema), with two exceptions, see
// TestFormatVectors. `make interop` compares the two. indigo differs in several formats,
// and its regular expressions took a quarter of the time of a large applyWrites.

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

// formats are the string formats of schemas, by their names there.
var formats = map[string]struct {
	valid func(string) bool
	name  string // in errors, as in the reference implementation
}{
	"at-identifier": {isAtIdentifier, "AT identifier"},
	"at-uri":        {isATURI, "at-uri"},
	"cid":           {isCID, "CID string"},
	"datetime":      {isDatetime, "datetime"},
	"did":           {isDID, "DID"},
	"handle":        {isHandle, "handle"},
	"language":      {isLanguage, "language"},
	"nsid":          {isNSID, "NSID"},
	"record-key":    {isRecordKey, "record key"},
	"tid":           {isTID, "TID string"},
	"uri":           {isURI, "uri"},
}

// CheckFormat returns an error if text is invalid in a string format of the protocol,
// such as "uri" or "language".
func CheckFormat(format, text string) error {
	f, ok := formats[format]
	if !ok {
		return fmt.Errorf("unknown string format %q", format)
	}
	if !f.valid(text) {
		return fmt.Errorf("invalid %s (got %.80q)", f.name, text)
	}
	return nil
}

func isAtIdentifier(text string) bool {
	if strings.HasPrefix(text, "did:") {
		return isDID(text)
	}
	return isHandle(text)
}

// isATURI also accepts a fragment, which is a JSON pointer.
func isATURI(text string) bool {
	rest, ok := strings.CutPrefix(text, "at://")
	if !ok || len(text) > 8192 {
		return false
	}
	rest, fragment, hasFragment := strings.Cut(rest, "#")
	authority, path, hasPath := strings.Cut(rest, "/")
	collection, rkey, hasKey := strings.Cut(path, "/")
	return isAtIdentifier(authority) && (!hasPath || isNSID(collection)) && (!hasKey || isRecordKey(rkey)) &&
		(!hasFragment || isPointer(fragment))
}

// isPointer reports whether text is a JSON pointer in the fragment of a URI.
func isPointer(text string) bool {
	if !strings.HasPrefix(text, "/") || !all(text, alphanumeric|dot|dash|underscore|colon|percent|tilde|pointerMark) {
		return false
	}
	pointer, err := url.PathUnescape(text)
	return err == nil && utf8.ValidString(pointer)
}

// maxCID limits the length of a CID, since decoding other encodings than base32 takes
// quadratic time.
const maxCID = 128

// isCID accepts only the canonical encoding of a CID: base32, or base58 for a CIDv0.
func isCID(text string) bool {
	if len(text) > maxCID {
		return false
	}
	id, err := cid.Decode(text)
	return err == nil && id.String() == text
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

// isLabel reports whether text is a label of a domain name.
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

// isDatetime checks the form itself, because time.Parse accepts more forms than the
// protocol and offsets of 24 hours, and the date with time.Parse.
func isDatetime(text string) bool {
	const form = "9999-19-39T29:59:59"
	if len(text) > 64 || len(text) <= len(form) || strings.HasSuffix(text, "-00:00") {
		return false
	}
	if !matchesForm(text[:len(form)], form) {
		return false
	}
	zone := text[len(form):]
	if zone[0] == '.' {
		digits := 1
		for digits < len(zone) && digit.has(zone[digits]) {
			digits++
		}
		if digits == 1 {
			return false
		}
		zone = zone[digits:]
	}
	if zone != "Z" && (!matchesForm(zone, "+29:59") && !matchesForm(zone, "-29:59") || zone[1:3] > "23") {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && !at.Before(yearZero) && at.Before(yearTenThousand)
}

var (
	yearZero        = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	yearTenThousand = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// matchesForm compares text with a form, in which a digit matches itself and all smaller
// digits.
func matchesForm(text, form string) bool {
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

// uriPattern is the reference implementation's pattern for a URI, with the characters of
// RFC 3986 in the scheme as well. JavaScript's \s is written out.
var uriPattern = regexp.MustCompile(`^\w[\w+.-]*:(//)?[^/` + blanks + `][^` + blanks + `]*$`)

const blanks = `\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}`

func isURI(text string) bool { return uriPattern.MatchString(text) }

// languagePattern matches a well-formed tag of BCP 47, by RFC 5646, section 2.1, with a
// language of two or three letters in lower case.
var languagePattern = regexp.MustCompile(`^(?:` +
	`en-GB-oed|i-ami|i-bnn|i-default|i-enochian|i-hak|i-klingon|i-lux|i-mingo|i-navajo|i-pwn|i-tao|i-tay|i-tsu|sgn-BE-FR|sgn-BE-NL|sgn-CH-DE|` +
	`art-lojban|cel-gaulish|no-bok|no-nyn|zh-guoyu|zh-hakka|zh-min|zh-min-nan|zh-xiang|` +
	`[a-z]{2,3}(?i:-[a-z]{3}){0,3}` + // the language
	`(?i:-[a-z]{4})?(?i:-[a-z]{2}|-[0-9]{3})?` + // script and region
	`((?i:-[a-z0-9]{5,8}|-[0-9][a-z0-9]{3})*)` + // variants
	`((?i:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*)` + // extensions
	`(?i:-x(?:-[a-z0-9]{1,8})+)?|` + // private use
	`(?i:x(?:-[a-z0-9]{1,8})+))$`)

// isLanguage allows each variant and kind of extension once (RFC 5646, section 2.2).
func isLanguage(text string) bool {
	parts := languagePattern.FindStringSubmatch(text)
	if parts == nil {
		return false
	}
	variants, extensions := strings.Split(parts[1], "-"), strings.Split(parts[2], "-")
	return !hasDuplicates(variants[1:]) && !hasDuplicates(slices.DeleteFunc(extensions[1:], func(tag string) bool { return len(tag) > 1 }))
}

// hasDuplicates reports whether a subtag occurs twice, ignoring case.
func hasDuplicates(tags []string) bool {
	seen := map[string]bool{}
	for _, tag := range tags {
		tag = strings.ToLower(tag)
		if seen[tag] {
			return true
		}
		seen[tag] = true
	}
	return false
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
	tidDigit    // 2 to 7 and a to z
	pointerMark // other characters of a JSON pointer in a URI

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
	for _, c := range []byte("@!$&'()*+,;=[]/") {
		of[c] = pointerMark
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
