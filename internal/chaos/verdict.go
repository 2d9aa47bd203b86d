package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/post"
)

// spareShare is how much more than the minimum the points may be.
const spareShare = 5 // percent

// maxListed limits the examples of one kind of problem.
const maxListed = 5

// contents counts the records of a repo, or those that it should have, by what
// they are about.
type contents map[string]int

// expect adds the records of a pushed image to the contents.
func (c contents) expect(owner string, m image) {
	for _, digest := range m.layers {
		c[layerOf(lexicon.ManifestURI(owner, m.digest), digest)]++
	}
	c[postOf(post.Image{Repository: m.repository, Tag: m.tag, Digest: m.digest})]++
}

// found adds a record of the repo to the contents.
func (c contents) found(collection, uri string, record map[string]any) {
	what := "unexpected record " + uri
	switch collection {
	case lexicon.NSIDLayer:
		what = layerOf(fmt.Sprint(record["manifest"]), fmt.Sprint(record["digest"]))
	case lexicon.NSIDPost:
		if image, ok := post.Origin(record); ok {
			what = postOf(image)
		}
	}
	c[what]++
}

func layerOf(manifest, digest string) string { return "record of layer " + digest + " of " + manifest }

func postOf(image post.Image) string {
	return fmt.Sprintf("post of %s:%s@%s", image.Repository, image.Tag, image.Digest)
}

// records is the number of records.
func (c contents) records() int {
	sum := 0
	for _, n := range c {
		sum += n
	}
	return sum
}

// compare returns a line for each difference, with examples of many of one kind.
func compare(want, got contents) []string {
	examples := map[string][]string{}
	note := func(problem, what string) { examples[problem] = append(examples[problem], what) }
	for what, n := range want {
		if got[what] < n {
			note("missing", what)
		}
	}
	for what, n := range got {
		switch {
		case want[what] == 0:
			note("not expected", what)
		case n > want[what]:
			note(fmt.Sprintf("%d times", n), what)
		}
	}
	var problems []string
	for problem, list := range examples {
		slices.Sort(list)
		problems = append(problems, fmt.Sprintf("%d records %s, such as %s", len(list), problem, strings.Join(list[:min(len(list), maxListed)], "; ")))
	}
	slices.Sort(problems)
	return problems
}

// checkPoints returns a problem if the calls cost too much.
//
// The minimum is one create for each record. The PDS may have been stopped before it
// applied a call or after, without a response in either case: the points of these
// calls are not counted. Every other call that is sent again after its response was lost
// costs more than the minimum if it was not read back first.
func checkPoints(records int, c counts) []string {
	minimum := records * points["create"]
	spent := c.points - c.unanswered
	if most := minimum + minimum*spareShare/100; spent > most {
		return []string{fmt.Sprintf("%d points spent; at most %d, %d %% more than the minimum of %d, are allowed", spent, most, spareShare, minimum)}
	}
	return nil
}
