package stats

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/counter"
)

// repositories serves GET repositories?sort=name|pulls|pushes&order=asc|desc&limit=&cursor=.
// Numbers go down and names go up unless order says otherwise.
func (a *api) repositories(w http.ResponseWriter, q *http.Request) {
	visible, ok := a.access(w, q)
	if !ok {
		return
	}
	page, err := parsePage(q)
	if err != nil {
		badRequest(w, err)
		return
	}
	all, degraded, err := a.all(q.Context())
	if err != nil {
		a.unavailable(w, err)
		return
	}
	var list []position
	for i, t := range all {
		if p := page.position(t, i); visible(t.Name) && page.behind(p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, page.compare)

	out := struct {
		Repositories []numbers `json:"repositories"`
		Cursor       string    `json:"cursor,omitempty"`
		Degraded     bool      `json:"degraded,omitempty"`
	}{Repositories: []numbers{}, Degraded: degraded}
	for _, p := range list[:min(page.limit, len(list))] {
		out.Repositories = append(out.Repositories, numbersOf(all[p.at]))
	}
	if len(list) > page.limit {
		out.Cursor = page.cursor(list[page.limit-1])
	}
	answer(w, out)
}

// page is a look at the sorted list. It begins behind a position rather than
// at a number, so what moves while somebody turns pages is not shown twice
// because of others.
type page struct {
	sort, order string
	limit       int
	after       *position
}

type position struct {
	Sort  string `json:"s"`
	Order string `json:"o"`
	Value int64  `json:"v"`
	Name  string `json:"n"`
	at    int
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
	if err != nil || json.Unmarshal(b, &p.after) != nil || p.after == nil {
		return p, errors.New("this cursor is not one of ours")
	}
	if p.after.Sort != p.sort || p.after.Order != p.order {
		return p, errors.New("this cursor belongs to another sort or order")
	}
	return p, nil
}

func (p page) position(t counter.Totals, at int) position {
	pos := position{Sort: p.sort, Order: p.order, Name: t.Name, at: at}
	switch p.sort {
	case "pulls":
		pos.Value = t.Counts[counter.Pull]
	case "pushes":
		pos.Value = t.Counts[counter.Push]
	}
	return pos
}

// compare puts equal numbers in the order of their names, whichever way the
// numbers go.
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

func (p page) behind(pos position) bool {
	return p.after == nil || p.compare(*p.after, pos) < 0
}

func (p page) cursor(pos position) string {
	b, _ := json.Marshal(pos)
	return base64.RawURLEncoding.EncodeToString(b)
}
