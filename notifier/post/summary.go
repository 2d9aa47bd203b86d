package post

import (
	"iter"
	"strconv"
	"strings"
	"time"
)

// A Summary is the content of a post about the images of a period, which were too many
// or came too late for a post each.
type Summary struct {
	Since, Until time.Time            // of the first and the last push
	Images       int                  // all images, also those that Repositories does not name
	Repositories []RepositoryVersions // in the order in which they are named
	Link         string               // address behind the number of images, valid according to CheckLink; empty: none
}

// RepositoryVersions are the images of one repository in a Summary.
type RepositoryVersions struct {
	Name     string   // "oss/app"
	Versions []string // one tag of each image, in the order in which they are named
}

// ComposeSummary writes the post of a summary, like Compose. at is the time of the post.
// What does not fit is omitted, in this order: versions of a repository after the
// first, repositories from the last, the middle of the name. A summary without
// repositories is valid.
func ComposeSummary(s Summary, langs []string, at time.Time) (map[string]any, error) {
	s = s.clean()
	for cut := range s.cuts() {
		b := s.write(cut, at)
		if b.err != nil {
			return nil, b.err
		}
		if b.fits() {
			return b.record(langs, at)
		}
	}
	return nil, errTooLong // not reached: the text of the last cut is short
}

// maxListed is above the number of repositories or versions that fit into a post, since
// each takes at least three graphemes.
const maxListed = maxGraphemes / 3

// clean is like Facts.clean, and limits the lists to what can fit.
func (s Summary) clean() Summary {
	var repositories []RepositoryVersions
	listed := 0
	for _, r := range s.Repositories {
		kept := RepositoryVersions{Name: line(r.Name)}
		for _, version := range r.Versions {
			if version = line(version); version != "" && len(kept.Versions) < maxListed {
				kept.Versions = append(kept.Versions, version)
			}
		}
		if kept.Name == "" || len(kept.Versions) == 0 {
			continue
		}
		listed += len(kept.Versions)
		if len(repositories) < maxListed {
			repositories = append(repositories, kept)
		}
	}
	s.Repositories, s.Images = repositories, max(s.Images, listed)
	return s
}

// A summaryCut is the length of the lists in one version of the text.
type summaryCut struct {
	repositories int
	versions     int // of each repository
	name         int // graphemes of each repository's name
}

// cuts yields the cuts to try, longest text first.
func (s Summary) cuts() iter.Seq[summaryCut] {
	return func(yield func(summaryCut) bool) {
		c := summaryCut{repositories: len(s.Repositories), name: fewGraphemes}
		for _, r := range s.Repositories {
			c.versions, c.name = max(c.versions, len(r.Versions)), max(c.name, min(graphemes(r.Name), maxGraphemes))
		}
		for ; c.versions > 1; c.versions-- {
			if !yield(c) {
				return
			}
		}
		for ; c.repositories > 1; c.repositories-- {
			if !yield(c) {
				return
			}
		}
		for ; c.repositories > 0 && c.name >= fewGraphemes; c.name-- {
			if !yield(c) {
				return
			}
		}
		yield(summaryCut{})
	}
}

// write builds the text:
//
//	12 images were pushed between 09:10 and 12:20 UTC: oss/app v1.2.3, v1.2.4; oss/db v2 and 9 more
func (s Summary) write(c summaryCut, at time.Time) *builder {
	b := new(builder)
	images := count(s.Images, "image", "images")
	if s.Link != "" {
		b.link(images, s.Link)
	} else {
		b.plain(images)
	}
	verb := " were pushed "
	if s.Images == 1 {
		verb = " was pushed "
	}
	b.plain(verb + period(s.Since, s.Until, at))
	left := s.Images
	var named []string
	for _, r := range s.Repositories[:c.repositories] {
		versions := r.Versions[:min(c.versions, len(r.Versions))]
		named = append(named, middle(r.Name, c.name)+" "+strings.Join(versions, ", "))
		left -= len(versions)
	}
	if len(named) == 0 {
		return b
	}
	b.plain(": " + strings.Join(named, "; "))
	if left > 0 {
		b.plain(" and " + strconv.Itoa(left) + " more")
	}
	return b
}

// period says in UTC, to the minute, when something happened. Days are shown unless all of
// it happened on the day of the post.
func period(since, until, at time.Time) string {
	since, until = since.UTC(), until.UTC()
	layout, today := "15:04", at.UTC().Format(time.DateOnly)
	if since.Format(time.DateOnly) != today || until.Format(time.DateOnly) != today {
		layout = "2 Jan 15:04"
	}
	from, to := since.Format(layout), until.Format(layout)
	if from == to {
		return "at " + from + " UTC"
	}
	return "between " + from + " and " + to + " UTC"
}
