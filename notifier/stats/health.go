package stats

import "net/http"

// health shows what Config.Health gives. The status is 200 even when something
// is degraded: the registry works, and nobody should restart it for this.
func (a *api) health(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	answer(w, a.Health(q.Context(), caller.all))
}
