package hold

import (
	"strconv"
	"strings"
)

// hostedRepo is #repo.
type hostedRepo struct {
	DID    string `json:"did"`
	Head   string `json:"head"`
	Rev    string `json:"rev"`
	Active bool   `json:"active"`
}

// listRepos is com.atproto.sync.listRepos. There is one, so a cursor, which is
// "<time>::<did>" as at the reference server, is always behind it; a page never
// needs another.
func (s *Server) listRepos(c *call) (any, error) {
	repos := []hostedRepo{}
	switch cursor := c.param("cursor"); {
	case cursor == "":
		head := s.repo.Head()
		repos = append(repos, hostedRepo{s.id.DID, head.Commit.String(), head.Rev, true})
	case !wellFormed(cursor):
		return nil, invalidRequest("Malformed cursor")
	}
	return map[string]any{"repos": repos}, nil
}

func wellFormed(cursor string) bool {
	at, did, ok := strings.Cut(cursor, "::")
	_, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && did != ""
}
