package hold

import (
	"errors"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// health is _health. The log has the reason for a 503; the client does not get
// it. A deactivated account is healthy.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	status, result := http.StatusOK, map[string]string{"version": s.version}
	if err := s.repo.Health(); err != nil && !errors.Is(err, repo.ErrDeactivated) {
		s.lg.Error("the repository does not work", "error", err)
		status, result["error"] = http.StatusServiceUnavailable, "Service Unavailable"
	}
	xrpc.WriteJSON(w, status, result, s.lg)
}
