package pages

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// Atom feeds (RFC 4287). The ID of an entry is a tag URI (RFC 4151) of the host, the day and
// the version: it stays the same when the registry moves to another path or the post is
// deleted.

type atomFeed struct {
	XMLName   xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID        string      `xml:"id"`
	Title     string      `xml:"title"`
	Updated   string      `xml:"updated"`
	Links     []atomLink  `xml:"link"`
	Author    atomAuthor  `xml:"author"`
	Generator string      `xml:"generator"`
	Entries   []atomEntry `xml:"entry"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type atomAuthor struct {
	Name string `xml:"name"`
}

type atomEntry struct {
	ID        string     `xml:"id"`
	Title     string     `xml:"title"`
	Published string     `xml:"published"`
	Updated   string     `xml:"updated"`
	Links     []atomLink `xml:"link"`
	Content   atomText   `xml:"content"`
}

type atomText struct {
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

func (s *site) feed(w http.ResponseWriter, r *http.Request) {
	found, err := s.Versions.Newest(inFeed, s.Visible)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.writeFeed(w, r, "Versions on "+s.Name, Prefix, found)
}

// repositoryFeed serves the feed of a repository: 404 under the same conditions as its page.
func (s *site) repositoryFeed(w http.ResponseWriter, r *http.Request, name string) {
	name = s.hidden(name)
	found, err := s.Versions.OfRepository(name, inFeed)
	if err != nil {
		s.fail(w, err)
		return
	}
	if len(found) == 0 {
		if _, counted := s.count(r.Context(), name); !counted {
			s.notFound(w, r)
			return
		}
	}
	s.writeFeed(w, r, "Versions of "+name, Path(name, ""), found)
}

// begun is the time of a feed without entries, which has to have one.
var begun = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// writeFeed writes the feed of a page.
func (s *site) writeFeed(w http.ResponseWriter, r *http.Request, title, page string, found []versions.Version) {
	base, updated := s.base(r), begun
	for i := range found {
		if found[i].Time.After(updated) {
			updated = found[i].Time
		}
	}
	f := atomFeed{
		ID: s.tagURI(base, begun, page), Title: title, Updated: machineDate(updated), Author: atomAuthor{s.Name}, Generator: "Tidings",
		Links: []atomLink{
			{Rel: "self", Type: "application/atom+xml", Href: base + strings.TrimSuffix(page, "/") + "/" + feedName},
			{Rel: "alternate", Type: "text/html", Href: base + page},
		},
	}
	for i := range found {
		f.Entries = append(f.Entries, s.entry(base, &found[i]))
	}
	content, err := xml.MarshalIndent(f, "", "  ")
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/atom+xml; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache") // a repository can stop being public
	serve(w, r, append([]byte(xml.Header), content...), updated.Truncate(time.Second))
}

func (s *site) entry(base string, v *versions.Version) atomEntry {
	name := v.Repository + ":" + v.Name
	e := atomEntry{
		ID:        s.tagURI(base, v.Time, name+"@"+v.Digest),
		Title:     name,
		Published: machineDate(v.Time),
		Updated:   machineDate(v.Time),
		Links:     []atomLink{{Rel: "alternate", Type: "text/html", Href: URL(base, v.Repository, v.Name)}},
		Content:   atomText{"text", s.describe(v)},
	}
	if post := s.postURL(v); post != "" {
		e.Links = append(e.Links, atomLink{Rel: "related", Type: "text/html", Href: post})
	}
	return e
}

// describe is a version in plain text, a line for each fact.
func (s *site) describe(v *versions.Version) string {
	var lines []string
	if v.Size > 0 {
		lines = append(lines, post.Size(v.Size))
	}
	if len(v.Platforms) > 0 {
		lines = append(lines, strings.Join(v.Platforms, ", "))
	}
	if len(v.Tags) > 0 {
		lines = append(lines, "also tagged "+strings.Join(v.Tags, ", "))
	}
	if pull := s.pull(v); pull != "" {
		lines = append(lines, "docker pull "+pull)
	}
	return strings.Join(append(lines, v.Digest), "\n")
}

// tagURI is a tag URI of the host of a URL.
func (s *site) tagURI(base string, at time.Time, name string) string {
	host := "localhost"
	if u, err := url.Parse(base); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	return "tag:" + host + "," + at.UTC().Format(time.DateOnly) + ":" + (&url.URL{Path: name}).EscapedPath()
}
