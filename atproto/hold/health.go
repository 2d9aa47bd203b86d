package hold

import (
	"errors"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// health is _health. What is wrong with the repository goes into the log, not
// to the caller. That the account has moved away is nothing wrong.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.fail(w, r, "_health", invalidRequest("Incorrect HTTP method (%.20s) expected GET", r.Method))
		return
	}
	answer := map[string]string{"version": s.version}
	if err := s.repo.Health(); err != nil && !errors.Is(err, repo.ErrDeactivated) {
		s.lg.Error("repository does not work", "error", err)
		answer["error"] = "Service Unavailable"
		s.reply(w, r, http.StatusServiceUnavailable, answer)
		return
	}
	s.reply(w, r, http.StatusOK, answer)
}
