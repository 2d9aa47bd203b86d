package stats

import "net/http"

// pushes serves GET pushes?limit=. It filters the result again, so that a fault in
// Config.Pushes does not disclose names of private repositories.
func (a *api) pushes(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	limit, err := number(q, "limit", 50, maxLimit)
	if err != nil {
		badRequest(w, err)
		return
	}
	release, err := a.acquire(q.Context())
	if err != nil {
		a.unavailable(w, err)
		return
	}
	defer release()
	list, err := a.Pushes(q.Context(), limit, caller.all)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	out := struct {
		Pushes []Push `json:"pushes"`
	}{Pushes: []Push{}}
	for _, p := range list {
		if len(out.Pushes) == limit || !caller.visible(p.Repository) {
			continue
		}
		if p.Tags == nil {
			p.Tags = []string{}
		}
		if p.Platforms == nil {
			p.Platforms = []string{}
		}
		out.Pushes = append(out.Pushes, p)
	}
	answer(w, out)
}
