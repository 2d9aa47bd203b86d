package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// repoStatus is what getRepoStatus tells. An account that is elsewhere has no rev.
type repoStatus struct {
	DID    string `json:"did"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"`
	Rev    string `json:"rev,omitempty"`
}

// getRepoStatus is com.atproto.sync.getRepoStatus.
func (s *Server) getRepoStatus(c *xrpc.Call) (any, error) {
	if err := s.ownDID(c); err != nil {
		return nil, err
	}
	if status := s.status(); status != "" {
		return repoStatus{DID: s.id.DID, Status: status}, nil
	}
	return repoStatus{DID: s.id.DID, Active: true, Rev: s.repo.Head().Rev}, nil
}
