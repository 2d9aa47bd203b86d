package hold

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// getCommitPath is com.atproto.sync.getCommitPath of earlier versions of the
// protocol: the commits after earliest up to latest, the oldest first. Only
// those whose event is kept are known.
func (s *Server) getCommitPath(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	latest, err := commitParam(c, "latest")
	if err != nil {
		return nil, err
	}
	earliest, err := commitParam(c, "earliest")
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
func commitParam(c *xrpc.Call, name string) (cid.Cid, error) {
	if c.Param(name) == "" {
		return cid.Undef, nil
	}
	id, err := cid.Decode(c.Param(name))
	if err != nil {
		return cid.Undef, xrpc.InvalidRequest("Invalid CID string (got %.80q) at $.%s", c.Param(name), name)
	}
	return id, nil
}

// mustBeHead refuses a parameter that names another commit than the head, so
// that nobody takes the one for the other.
func (s *Server) mustBeHead(c *xrpc.Call, name string) error {
	id, err := commitParam(c, name)
	if err != nil {
		return err
	}
	if head := s.repo.Head().Commit; id.Defined() && id != head {
		return xrpc.InvalidRequest("The repository is kept as of its head only, %s: leave out %s", head, name)
	}
	return nil
}

func notKept(err error) error {
	if errors.Is(err, repo.ErrNotKept) {
		return xrpc.InvalidRequest("%v: getRepo without earliest gives the whole repository", err)
	}
	return err
}

// sinceRev is where a caller wants to go on from: a rev, or a commit by the
// older parameters earliest and latest.
func (s *Server) sinceRev(c *xrpc.Call) (string, error) {
	if err := s.mustBeHead(c, "latest"); err != nil {
		return "", err
	}
	earliest, err := commitParam(c, "earliest")
	if err != nil || !earliest.Defined() {
		return c.Param("since"), err
	}
	if c.Param("since") != "" {
		return "", xrpc.InvalidRequest("since and earliest exclude each other")
	}
	var rev string
	err = s.placed(c, searchTimeout, func(ctx context.Context) (err error) {
		rev, err = s.repo.RevOf(ctx, earliest)
		return err
	})
	return rev, notKept(err)
}
