package stats

import "net/http"

// health serves the result of Config.Health. The status is 200 even if something is
// degraded: the registry works, and an orchestrator must not restart it.
func (a *api) health(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	answer(w, a.Health(q.Context(), caller.all))
}
