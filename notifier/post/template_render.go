package post

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"
)

// The noncharacters around the text of a facet.
const (
	markStart = '\uFDD0' // followed by the number of the facet
	markText  = '\uFDD1'
	markEnd   = '\uFDD2'
)

func isMark(r rune) bool { return unicode.Is(unicode.Noncharacter_Code_Point, r) }

// errLimit ends an execution that writes too much or takes too long. What it has written
// is the beginning of a text that is too long.
var errLimit = errors.New("the output is too long")

// A rendering is one execution of a template.
type rendering struct {
	deadline time.Time
	out      strings.Builder
	facets   []map[string]any // features
	wrong    error            // the first facet that is invalid
}

// execute returns the text that the template writes for d.
func (r *rendering) execute(t *template.Template, d templateData) *builder {
	b := new(builder)
	copied, err := t.Clone()
	if err == nil {
		err = copied.Funcs(r.functions()).Execute(r, d)
	}
	cut := errors.Is(err, errLimit)
	if err != nil && !cut {
		b.err = fmt.Errorf("%w: %w", ErrTemplate, explainTemplate(err, d, callable))
		return b
	}
	r.read(b, tidy(r.out.String()))
	if b.more = cut; b.text.Len() == 0 {
		b.err = fmt.Errorf("%w: it writes nothing", ErrTemplate)
	}
	return b
}

// Write implements io.Writer for the output of the template.
func (r *rendering) Write(p []byte) (int, error) {
	if r.out.Len()+len(p) > maxOutput {
		return 0, errLimit
	}
	return r.out.Write(p)
}

// tidy removes control characters, spaces around lines, and blank lines except single
// ones: a fact that is missing may leave them.
func tidy(s string) string {
	var out []string
	for l := range strings.Lines(strings.ToValidUTF8(s, "\uFFFD")) {
		l = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) && r != '\t' {
				return -1
			}
			return r
		}, l))
		if l != "" || len(out) > 0 && out[len(out)-1] != "" {
			out = append(out, l)
		}
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}

// read writes the output of a template to b, with its facets. Marks that are not complete
// are left out, and so is a facet in another one.
func (r *rendering) read(b *builder, s string) {
	inner := 0 // facets in the open one
	var text strings.Builder
	var open map[string]any // feature of the open facet
	end := func() {
		if open != nil {
			b.facet(text.String(), open)
		} else {
			b.plain(text.String())
		}
		text.Reset()
		open = nil
	}
	for s != "" {
		i := strings.IndexFunc(s, isMark)
		if i < 0 {
			text.WriteString(s)
			break
		}
		text.WriteString(s[:i])
		mark, size := utf8.DecodeRuneInString(s[i:])
		rest := s[i+size:]
		switch mark {
		case markStart:
			number, after, _ := strings.Cut(rest, string(markText))
			rest = after
			if feature := r.feature(number); open == nil {
				end()
				open = feature
			} else {
				inner++
			}
		case markEnd:
			if inner > 0 {
				inner--
			} else {
				end()
			}
		}
		s = rest
	}
	end()
}

func (r *rendering) feature(number string) map[string]any {
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= len(r.facets) {
		return nil
	}
	return r.facets[i]
}

// functions are the functions of a template.
func (r *rendering) functions() template.FuncMap {
	return template.FuncMap{"link": r.link, "mention": r.mention, "hashtag": r.hashtag, "print": r.print, "join": r.join}
}

// link is text that links to an address. Without an address it is plain text.
func (r *rendering) link(text, address any) (string, error) {
	target, ok := address.(string)
	if !ok {
		r.report(errors.New("link: its address must be text, and not an annotation"))
		return r.limited(fmt.Sprint(text))
	}
	if target == "" {
		return r.limited(fmt.Sprint(text))
	}
	var b builder
	b.link("link", target)
	return r.mark(fmt.Sprint(text), b, nil)
}

// mention is the handle of an account. Without a DID it is plain text.
func (r *rendering) mention(handle, did any) (string, error) {
	name, did2, err := texts(handle, did)
	if err != nil {
		r.report(fmt.Errorf("mention: %w", err))
		return r.limited(fmt.Sprint(handle))
	}
	name = strings.TrimPrefix(name, "@")
	if did2 == "" {
		return r.limited(name)
	}
	var b builder
	b.mention(Mention{name, did2})
	return r.mark("@"+name, b, CheckMention(Mention{name, did2}))
}

// hashtag is a name with "#".
func (r *rendering) hashtag(name any) (string, error) {
	text, _, err := texts(name, "")
	if err != nil {
		r.report(fmt.Errorf("hashtag: %w", err))
		return r.limited(fmt.Sprint(name))
	}
	text = strings.TrimPrefix(text, "#")
	if text == "" {
		return "", nil
	}
	var b builder
	b.hashtag(text)
	return r.mark("#"+text, b, CheckHashtag(text))
}

// texts are two arguments that must be plain text.
func texts(one, two any) (string, string, error) {
	a, ok := one.(string)
	b, also := two.(string)
	if !ok || !also {
		return "", "", errors.New("its arguments must be text, and not annotations")
	}
	return a, b, nil
}

// mark is text with the only facet of b, or without one if that is invalid.
func (r *rendering) mark(text string, b builder, err error) (string, error) {
	if err == nil {
		err = b.err
	}
	if err != nil {
		r.report(err)
		return r.limited(text)
	}
	if len(r.facets) == maxFacets || text == "" {
		return r.limited(text)
	}
	r.facets = append(r.facets, b.facets[0].feature)
	return r.limited(string(markStart) + strconv.Itoa(len(r.facets)-1) + string(markText) + text + string(markEnd))
}

func (r *rendering) report(err error) {
	if r.wrong == nil {
		r.wrong = err
	}
}

// limited returns s, or an error if it is too long or the time is over.
func (r *rendering) limited(s string) (string, error) {
	if len(s) > maxOutput || time.Now().After(r.deadline) {
		return "", errLimit
	}
	return s, nil
}

// print is its arguments one after the other. With an annotation among them it is one.
func (r *rendering) print(values ...any) (any, error) {
	var out strings.Builder
	for _, val := range values {
		out.WriteString(fmt.Sprint(val))
		if _, err := r.limited(out.String()); err != nil {
			return "", err
		}
	}
	if slices.ContainsFunc(values, isAnnotation) {
		return annotation(out.String()), nil
	}
	return out.String(), nil
}

// isAnnotation reports whether a value is an annotation, or several.
func isAnnotation(val any) bool {
	if val == nil {
		return false
	}
	t := reflect.TypeOf(val)
	return t == reflect.TypeFor[annotation]() || t == reflect.TypeFor[map[string]annotation]() || t == reflect.TypeFor[templateData]()
}

// join joins a list with a separator.
func (r *rendering) join(list []string, separator string) (string, error) {
	return r.limited(strings.Join(list, separator))
}
