package hold

import (
	"net/http"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// describeRepo is com.atproto.repo.describeRepo.
func (s *Server) describeRepo(c *xrpc.Call) (any, error) {
	if !s.id.Matches(c.Param("repo")) {
		return nil, xrpc.Errorf(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: %.300s", c.Param("repo"))
	}
	if s.here() != nil {
		return nil, s.repoDeactivated(c.Param("repo"))
	}
	collections, err := s.repo.Collections()
	if err != nil {
		return nil, err
	}
	if collections == nil {
		collections = []string{}
	}
	return struct {
		Handle          string            `json:"handle"`
		DID             string            `json:"did"`
		DIDDoc          identity.Document `json:"didDoc"`
		Collections     []string          `json:"collections"`
		HandleIsCorrect bool              `json:"handleIsCorrect"`
	}{s.id.Handle, s.id.DID, s.doc, collections, s.id.Handle != identity.HandleInvalid}, nil
}
