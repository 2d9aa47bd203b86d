package hold

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// hostedRepo is #repo.
type hostedRepo struct {
	DID    string `json:"did"`
	Head   string `json:"head"`
	Rev    string `json:"rev"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"` // if it is not
}

// listRepos is com.atproto.sync.listRepos. There is one repository, and any
// cursor, "<time>::<did>" as at the reference server, is behind it.
func (s *Server) listRepos(c *xrpc.Call) (any, error) {
	page := struct {
		Cursor string       `json:"cursor,omitempty"`
		Repos  []hostedRepo `json:"repos"`
	}{Repos: []hostedRepo{}}
	switch cursor := c.Param("cursor"); {
	case cursor == "":
		head, status := s.repo.Head(), s.status()
		page.Repos = append(page.Repos, hostedRepo{s.id.DID, head.Commit.String(), head.Rev, status == "", status})
		page.Cursor = fmt.Sprintf("0::%s", s.id.DID)
	case !wellFormed(cursor):
		return nil, xrpc.InvalidRequest("Malformed cursor")
	}
	return page, nil
}

func wellFormed(cursor string) bool {
	at, did, ok := strings.Cut(cursor, "::")
	_, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && did != ""
}
