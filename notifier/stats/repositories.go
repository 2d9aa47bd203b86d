package stats

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// repositories serves GET repositories?sort=name|pulls|pushes&order=asc|desc&limit=&cursor=.
// By default counts are sorted descending and names ascending.
func (a *api) repositories(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	page, err := parsePage(q)
	if err != nil {
		badRequest(w, err)
		return
	}
	all, indexes, degraded, err := a.sorted(q.Context(), page, caller.all)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	first := sort.Search(len(indexes), func(i int) bool { return page.after(page.position(all[indexes[i]])) })
	indexes = indexes[first:]

	out := struct {
		Repositories []totals `json:"repositories"`
		Cursor       string   `json:"cursor,omitempty"`
		Degraded     bool     `json:"degraded,omitempty"`
	}{Repositories: []totals{}, Degraded: degraded}
	for _, i := range indexes[:min(page.limit, len(indexes))] {
		out.Repositories = append(out.Repositories, totalsOf(all[i]))
	}
	if len(indexes) > page.limit {
		out.Cursor = page.cursor(page.position(all[indexes[page.limit-1]]))
	}
	respond(w, out)
}

// page is a page of the sorted list. It starts after a position and not at an
// index, so that a repository that moves between two requests does not make others
// appear twice.
type page struct {
	sort, order string
	limit       int
	start       *position // of the last repository on the previous page; nil: the first page
}

type position struct {
	Sort  string `json:"s"`
	Order string `json:"o"`
	Value int64  `json:"v"`
	Name  string `json:"n"`
}

func parsePage(q *http.Request) (page, error) {
	var p page
	var err error
	if p.sort, err = oneOf(q, "sort", "name", "pulls", "pushes"); err != nil {
		return p, err
	}
	orders := []string{"desc", "asc"}
	if p.sort == "name" {
		slices.Reverse(orders)
	}
	if p.order, err = oneOf(q, "order", orders...); err != nil {
		return p, err
	}
	if p.limit, err = number(q, "limit", 100, maxLimit); err != nil {
		return p, err
	}
	cursor := q.URL.Query().Get("cursor")
	if cursor == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(b, &p.start) != nil || p.start == nil {
		return p, errors.New("invalid cursor")
	}
	if p.start.Sort != p.sort || p.start.Order != p.order {
		return p, errors.New("cursor belongs to another sort or order")
	}
	return p, nil
}

func (p page) position(t counts.Totals) position {
	pos := position{Sort: p.sort, Order: p.order, Name: t.Name}
	switch p.sort {
	case "pulls":
		pos.Value = t.Counts[counts.Pull]
	case "pushes":
		pos.Value = t.Counts[counts.Push]
	}
	return pos
}

// compare orders equal counts by name, ascending in both orders.
func (p page) compare(a, b position) int {
	c := cmp.Compare(a.Value, b.Value)
	if p.sort == "name" {
		c = strings.Compare(a.Name, b.Name)
	}
	if p.order == "desc" {
		c = -c
	}
	return cmp.Or(c, strings.Compare(a.Name, b.Name))
}

// after reports whether pos is on this page or a later one.
func (p page) after(pos position) bool {
	return p.start == nil || p.compare(*p.start, pos) < 0
}

func (p page) cursor(pos position) string {
	b, _ := json.Marshal(pos)
	return base64.RawURLEncoding.EncodeToString(b)
}
