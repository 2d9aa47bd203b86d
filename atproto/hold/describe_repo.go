package hold

import (
	"fmt"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/identity"
)

// describeRepo is com.atproto.repo.describeRepo.
func (s *Server) describeRepo(c *call) (any, error) {
	if !s.id.Matches(c.param("repo")) {
		return nil, &Error{http.StatusBadRequest, "RepoNotFound", fmt.Sprintf("Could not find repo for DID: %.300s", c.param("repo"))}
	}
	if s.here() != nil {
		return nil, s.repoDeactivated(c.param("repo"))
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
