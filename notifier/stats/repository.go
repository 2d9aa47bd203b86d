package stats

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// repository serves GET repositories/NAME?limit= and GET
// repositories/NAME/daily?days=, which a pattern of the mux cannot express. For a
// repository whose own name ends in /daily, clients escape that slash as %2F.
func (a *api) repository(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	escaped := strings.TrimPrefix(q.URL.EscapedPath(), Prefix+"repositories/")
	escaped, daily := strings.CutSuffix(escaped, "/daily")
	name, err := url.PathUnescape(escaped)
	if err != nil || name == "" || len(name) > maxName {
		a.noRepository(w, a.Fallback != nil && a.bad.now(a.Now()))
		return
	}
	if !caller.visible(name) {
		name = noName // so that the response takes as long as for a missing one
	}
	if daily {
		a.daily(w, q, name)
		return
	}
	a.one(w, q, name)
}

// maxName is the maximum length of a name: a prefix for private ones, an owner's DID,
// a slash, and a repository.
const maxName = 8 + 2048 + 1 + 256

// noName is not a valid name of a repository.
const noName = "-"

// noRepository writes the same response for a missing repository and one that the
// caller may not see. If it is degraded, another registry may have counted it.
func (a *api) noRepository(w http.ResponseWriter, degraded bool) {
	failWith(w, http.StatusNotFound, "RepositoryNotFound", "there are no counts for this repository, or it is not public", degraded)
}

type tag struct {
	Tag string `json:"tag"`
	numbers
}

type detail struct {
	totals counts.Totals
	tags   map[string]map[counts.Class]int64
	found  bool
}

// detail reads a repository. If it cannot, or there is none, it responds with an error
// and ok is false.
func (a *api) detail(w http.ResponseWriter, q *http.Request, name string) (d detail, degraded, ok bool) {
	d, degraded, err := read(q.Context(), a, func(ctx context.Context, s counts.Source) (detail, error) {
		totals, tags, found, err := s.Repository(ctx, name)
		return detail{totals, tags, found}, err
	})
	if err != nil {
		a.unavailable(w, err)
		return detail{}, false, false
	}
	if !d.found {
		a.noRepository(w, degraded)
	}
	return d, degraded, d.found
}

// one serves a repository with its most pulled tags.
func (a *api) one(w http.ResponseWriter, q *http.Request, name string) {
	limit, err := number(q, "limit", 100, maxLimit)
	if err != nil {
		badRequest(w, err)
		return
	}
	d, degraded, ok := a.detail(w, q, name)
	if !ok {
		return
	}
	tags := make([]tag, 0, len(d.tags))
	for name, byClass := range d.tags {
		tags = append(tags, tag{name, numbersOf(byClass)})
	}
	slices.SortFunc(tags, func(a, b tag) int {
		return cmp.Or(cmp.Compare(b.Pulls, a.Pulls), strings.Compare(a.Tag, b.Tag))
	})
	respond(w, struct {
		totals
		Tags     []tag `json:"tags"`
		MoreTags bool  `json:"moreTags,omitempty"`
		Degraded bool  `json:"degraded,omitempty"`
	}{totalsOf(d.totals), tags[:min(limit, len(tags))], len(tags) > limit, degraded})
}

type day struct {
	Date string `json:"date"` // UTC
	numbers
}

// daily serves the counts of a repository by day.
func (a *api) daily(w http.ResponseWriter, q *http.Request, name string) {
	n, err := number(q, "days", 30, counts.KeepDays)
	if err != nil {
		badRequest(w, err)
		return
	}
	list, degraded, err := read(q.Context(), a, func(ctx context.Context, s counts.Source) ([]counts.Day, error) {
		return s.Daily(ctx, name, n)
	})
	if err != nil {
		a.unavailable(w, err)
		return
	}
	out := struct {
		Name     string `json:"name"`
		Days     []day  `json:"days"`
		Degraded bool   `json:"degraded,omitempty"`
	}{Name: name, Days: make([]day, 0, len(list)), Degraded: degraded}
	empty := true
	for _, d := range list {
		out.Days = append(out.Days, day{d.Date, numbersOf(d.Counts)})
		empty = empty && len(d.Counts) == 0
	}
	if empty {
		// There are no counts in these days, or no such repository.
		if _, _, ok := a.detail(w, q, name); !ok {
			return
		}
	}
	respond(w, out)
}
