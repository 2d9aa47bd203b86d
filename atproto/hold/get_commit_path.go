package hold

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// getCommitPath is com.atproto.sync.getCommitPath of earlier versions of the
// protocol: the commits after earliest up to latest, the oldest first. Only
// those whose event is kept are known.
func (s *Server) getCommitPath(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	latest, err := c.commit("latest")
	if err != nil {
		return nil, err
	}
	earliest, err := c.commit("earliest")
	if err != nil {
		return nil, err
	}
	var path []repo.CommitInfo
	err = s.placed(c, searchTimeout, func(ctx context.Context) (err error) {
		path, err = s.repo.CommitPath(ctx, earliest, latest)
		return err
	})
	if err != nil {
		return nil, notKept(err)
	}
	commits := make([]string, len(path))
	for i, commit := range path {
		commits[i] = commit.CID.String()
	}
	return map[string]any{"commits": commits}, nil
}

// commit is a parameter that names one; cid.Undef when it is not given.
func (c *call) commit(name string) (cid.Cid, error) {
	if c.param(name) == "" {
		return cid.Undef, nil
	}
	id, err := cid.Decode(c.param(name))
	if err != nil {
		return cid.Undef, invalidRequest("Invalid CID string (got %.80q) at $.%s", c.param(name), name)
	}
	return id, nil
}

// mustBeHead refuses a parameter that names another commit than the head, so
// that nobody takes the one for the other.
func (s *Server) mustBeHead(c *call, name string) error {
	id, err := c.commit(name)
	if err != nil {
		return err
	}
	if head := s.repo.Head().Commit; id.Defined() && id != head {
		return invalidRequest("The repository is kept as of its head only, %s: leave out %s", head, name)
	}
	return nil
}

func notKept(err error) error {
	if errors.Is(err, repo.ErrNotKept) {
		return invalidRequest("%v: getRepo without earliest gives the whole repository", err)
	}
	return err
}

// sinceRev is where a caller wants to go on from: a rev, or a commit by the
// older parameters earliest and latest.
func (s *Server) sinceRev(c *call) (string, error) {
	if err := s.mustBeHead(c, "latest"); err != nil {
		return "", err
	}
	earliest, err := c.commit("earliest")
	if err != nil || !earliest.Defined() {
		return c.param("since"), err
	}
	if c.param("since") != "" {
		return "", invalidRequest("since and earliest exclude each other")
	}
	var rev string
	err = s.placed(c, searchTimeout, func(ctx context.Context) (err error) {
		rev, err = s.repo.RevOf(ctx, earliest)
		return err
	})
	return rev, notKept(err)
}
