package post

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"text/template"
	"time"
)

// A Template writes the text of posts in place of the default text.
//
// Templates are text/template with few functions, and bounded: the source and the output are
// limited, range is limited to the lists of the data and not nested, there are no other
// templates and no methods, and the time is limited.
//
// Facets come from the functions link, mention and hashtag, never from the text. Such a
// function writes a noncharacter, the number of the facet, and its text between further
// noncharacters:
//
//	U+FDD0 0 U+FDD1 oss/app:v1.2.3 U+FDD2
//
// Neither facts nor the source of a template have noncharacters, since facts are cleaned
// and the source is refused. Values of annotations have a type of their own, which print
// and join keep, and which can't be the address of a link, a DID, or a hashtag. So a client
// that pushes can't add a facet.
type Template struct {
	parsed      *template.Template
	annotations []string
}

// ErrTemplate is returned for a template that failed with the facts of a post, although it
// did not with the samples.
var ErrTemplate = errors.New("execute the template")

// Limits of a template.
const (
	maxTemplate = 4096        // bytes of the source
	maxOutput   = 16 << 10    // bytes of the output, and of a value of print and join
	maxFacets   = 20          // the text of others is plain
	maxTime     = time.Second // of one execution; a post takes about ten
)

// ParseTemplate parses a template, which may use the annotations with the given keys. It
// returns an error if the template fails, or writes an invalid post, for one of the sample
// facts.
func ParseTemplate(text string, annotations []string) (*Template, error) {
	if err := CheckAnnotationKeys(annotations); err != nil {
		return nil, err
	}
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("the template has %d bytes; at most %d are allowed", len(text), maxTemplate)
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the template is empty; remove it to use the default text")
	}
	if strings.ContainsFunc(text, isMark) {
		return nil, errors.New("the template has a Unicode noncharacter; remove it")
	}
	parsed, err := template.New("template").Funcs(new(rendering).functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse the template: %w", explainTemplate(err, templateData{}, callable))
	}
	if len(parsed.Templates()) > 1 {
		return nil, errors.New("the template defines another template; write it in one")
	}
	if parsed.Tree == nil {
		return nil, errors.New("the template is empty; remove it to use the default text")
	}
	t := &Template{parsed, annotations}
	if err := t.checkTree(); err != nil {
		return nil, err
	}
	return t, t.trySamples()
}

// Compose writes the post that announces f, like the function Compose. A text that is too
// long is written again with fewer facts, and its end is cut if that is not enough.
func (t *Template) Compose(f Facts, langs []string, createdAt time.Time) (map[string]any, error) {
	record, _, err := t.compose(f, langs, createdAt)
	return record, err
}

// compose also returns what is wrong with the facets of the post, whose text is then plain.
// It assumes that each cut makes the text shorter, so that few of them are tried.
func (t *Template) compose(f Facts, langs []string, createdAt time.Time) (record map[string]any, wrong error, err error) {
	f = f.clean()
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	execute := func(c cut) (*builder, error) {
		r := &rendering{deadline: time.Now().Add(maxTime)}
		return r.execute(t.parsed, newTemplateData(f, c, createdAt)), r.wrong
	}
	cuts := slices.Collect(f.cuts())
	first := sort.Search(len(cuts)-1, func(i int) bool {
		b, _ := execute(cuts[i])
		return b.err != nil || b.fits()
	})
	b, wrong := execute(cuts[first])
	if b.err != nil {
		return nil, nil, b.err
	}
	b.truncate()
	record, err = b.record(langs, createdAt)
	return record, wrong, err
}

// trySamples composes posts with the sample facts.
func (t *Template) trySamples() error {
	for _, sample := range t.samples() {
		record, wrong, err := t.compose(sample, nil, sampleTime)
		if err == nil {
			err = wrong
		}
		if err == nil {
			_, err = Encode(record)
		}
		if err != nil {
			return fmt.Errorf("the template fails for %s:%s: %w", sample.Repository, sample.Tags[0], err)
		}
	}
	return nil
}

// Sample returns the text of a post with sample facts.
func (t *Template) Sample() string {
	record, err := t.Compose(t.samples()[0], nil, sampleTime)
	if err != nil {
		return ""
	}
	text, _ := record["text"].(string)
	return text
}

var sampleTime = time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)

// samples are facts for trying the template: of a typical image, of one of which only the
// name is known, and of an index with all facts.
func (t *Template) samples() []Facts {
	typical := Sample(t.annotations)
	index := typical
	index.Tags, index.Images, index.Layers, index.First, index.MoreVersions = []string{"v1.0.0"}, 4, 0, true, 3
	index.Platforms = []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}
	return []Facts{typical, {Repository: typical.Repository, Tags: typical.Tags[:1], Digest: typical.Digest}, index}
}
