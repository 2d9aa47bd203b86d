package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/versions"
)

//go:embed templates
var files embed.FS

var (
	functions = template.FuncMap{
		"size": post.Size, "number": number, "date": date, "machineDate": machineDate, "path": Path,
		"more":  func(platforms []string) int { return len(platforms) - shownPlatforms },
		"shown": func(i int) bool { return i < shownPlatforms },
		"uri":   documentURI,
	}
	indexPage      = parse("index.html")
	repositoryPage = parse("repository.html")
	versionPage    = parse("version.html")
	missingPage    = parse("missing.html")
	styleSheet     = mustRead("templates/style.css")
	iconImage      = mustRead("templates/icon.svg")
	// styleURL changes with the style sheet, so that browsers can cache it.
	styleURL = stylePath + "?v=" + contentTag(styleSheet)[1:9]
)

func parse(name string) *template.Template {
	return template.Must(template.New(name).Funcs(functions).ParseFS(files, "templates/layout.html", "templates/list.html", "templates/"+name))
}

func mustRead(name string) []byte {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // unreachable: the file is embedded
	}
	return content
}

// shownPlatforms is how many platforms a list names.
const shownPlatforms = 3

// A view is what all pages have.
type view struct {
	Title       string
	Site        string // name of the registry
	Style       string // path of the style sheet
	Feed        string // path of the feed
	DocumentURI string // at:// URI of the document that the page shows; "": none
}

func (s *site) view(title, feed string) view {
	return view{Title: title, Site: s.Name, Style: styleURL, Feed: feed}
}

func (s *site) index(w http.ResponseWriter, r *http.Request) {
	found, err := s.Versions.Newest(inIndex, s.Visible)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.render(w, r, http.StatusOK, indexPage, struct {
		view
		Versions []versions.Version
		Named    bool // each version with its repository
	}{s.view(s.Name, Prefix+feedName), found, true})
}

// repository serves the page of a repository: 404 if it is not public, or if nothing of it
// was announced or counted.
func (s *site) repository(w http.ResponseWriter, r *http.Request, name string) {
	name = s.hidden(name)
	found, err := s.Versions.OfRepository(name, listed+1)
	if err != nil {
		s.fail(w, err)
		return
	}
	totals, counted := s.count(r.Context(), name)
	if len(found) == 0 && !counted {
		s.notFound(w, r)
		return
	}
	page := struct {
		view
		Repository  string
		Counted     bool
		Pulls       int64
		Pushes      int64
		LastPush    time.Time
		Pull        string // what follows "docker pull"
		Versions    []versions.Version
		More, Named bool
	}{
		view: s.view(name, Path(name, feedName)), Repository: name, Counted: counted,
		Pulls: totals.Counts[counts.Pull], Pushes: totals.Counts[counts.Push], LastPush: totals.LastPush,
		Versions: found[:min(listed, len(found))], More: len(found) > listed,
	}
	if len(found) > 0 {
		page.Pull = s.pull(&found[0])
	}
	s.render(w, r, http.StatusOK, repositoryPage, page)
}

func (s *site) version(w http.ResponseWriter, r *http.Request, v versions.Version) {
	page := struct {
		view
		versions.Version
		Pull    string // what follows "docker pull"
		PostURL string
	}{s.view(v.Repository+":"+v.Name, Path(v.Repository, feedName)), v, s.pull(&v), s.postURL(&v)}
	if s.Config.Document != nil {
		page.DocumentURI = s.Config.Document(&v)
	}
	s.render(w, r, http.StatusOK, versionPage, page)
}

func (s *site) pull(v *versions.Version) string {
	if s.Pull == nil {
		return ""
	}
	return s.Pull(v.Repository, v.Name)
}

// postURL is where people can read the post of a version.
func (s *site) postURL(v *versions.Version) string {
	if v.Post == "" || s.Account == "" {
		return ""
	}
	return "https://bsky.app/profile/" + url.PathEscape(s.Account) + "/post/" + v.Post
}

func (s *site) notFound(w http.ResponseWriter, r *http.Request) {
	s.render(w, r, http.StatusNotFound, missingPage, s.view("Not found", Prefix+feedName))
}

func (s *site) fail(w http.ResponseWriter, err error) {
	s.log.Error("cannot read the versions", "error", err)
	w.Header().Set("Retry-After", "10")
	http.Error(w, "this page cannot be read at the moment", http.StatusServiceUnavailable)
}

func (s *site) render(w http.ResponseWriter, r *http.Request, status int, t *template.Template, data any) {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", data); err != nil {
		s.fail(w, fmt.Errorf("render %s: %w", t.Name(), err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache") // a repository can stop being public
	if status != http.StatusOK {
		w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
		w.WriteHeader(status)
		_, _ = w.Write(b.Bytes())
		return
	}
	serve(w, r, b.Bytes(), time.Time{})
}

func (s *site) style(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	serve(w, r, styleSheet, time.Time{})
}

func (s *site) icon(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	serve(w, r, iconImage, time.Time{})
}

// serve answers 304 if the client has the content.
func serve(w http.ResponseWriter, r *http.Request, content []byte, modified time.Time) {
	w.Header().Set("ETag", contentTag(content))
	http.ServeContent(w, r, "", modified, bytes.NewReader(content))
}

// contentTag is the ETag of a content.
func contentTag(content []byte) string {
	h := sha256.Sum256(content)
	return `"` + hex.EncodeToString(h[:12]) + `"`
}

// number formats a count with a thin space for each thousand.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

func date(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

func machineDate(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// documentURI marks an at:// URI as safe, whose scheme html/template does not know. Any other
// is omitted.
func documentURI(uri string) template.URL {
	if !strings.HasPrefix(uri, "at://") {
		return ""
	}
	return template.URL(uri)
}
