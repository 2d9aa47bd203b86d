package hold

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// getHead is com.atproto.sync.getHead, the predecessor of getLatestCommit.
func (s *Server) getHead(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	return map[string]string{"root": s.repo.Head().Commit.String()}, nil
}

// getLatestCommit is com.atproto.sync.getLatestCommit.
func (s *Server) getLatestCommit(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	head := s.repo.Head()
	return commitMeta{head.Commit.String(), head.Rev}, nil
}

// getCommitPath is com.atproto.sync.getCommitPath of earlier versions of the
// protocol: the commits after earliest up to latest, oldest first, as far as their
// events are kept.
func (s *Server) getCommitPath(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	latest, err := cidParam(c, "latest")
	if err != nil {
		return nil, err
	}
	earliest, err := cidParam(c, "earliest")
	if err != nil {
		return nil, err
	}
	var path []repo.CommitInfo
	err = s.inSlot(c, searchTimeout, func(ctx context.Context) (err error) {
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

// proofBuffers hold the proofs of syncGetRecord, which usually have 2 to 8 KiB.
var proofBuffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 8<<10)) }}

// maxProofBuffer is the size up to which a buffer is used again.
const maxProofBuffer = 64 << 10

// syncGetRecord is com.atproto.sync.getRecord: the signed commit, the tree nodes
// from the root to the position of the record, and the record. Without a record it
// is a proof of absence.
func (s *Server) syncGetRecord(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	if err := s.requireHead(c, "commit"); err != nil {
		return nil, err
	}
	car := proofBuffers.Get().(*bytes.Buffer)
	car.Reset()
	if err := s.repo.Proof(car, c.Param("collection"), c.Param("rkey")); err != nil {
		return nil, err
	}
	c.Response.Set("Content-Length", strconv.Itoa(car.Len()))
	return carStream(func(out io.Writer) error {
		_, err := out.Write(car.Bytes())
		if car.Cap() <= maxProofBuffer {
			proofBuffers.Put(car)
		}
		return err
	}), nil
}

// repoStatus is the result of getRepoStatus. A deactivated account has no rev.
type repoStatus struct {
	DID    string `json:"did"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"`
	Rev    string `json:"rev,omitempty"`
}

// getRepoStatus is com.atproto.sync.getRepoStatus.
func (s *Server) getRepoStatus(c *xrpc.Call) (any, error) {
	if err := s.requireOwnDID(c); err != nil {
		return nil, err
	}
	if status := s.status(); status != "" {
		return repoStatus{DID: s.id.DID, Status: status}, nil
	}
	return repoStatus{DID: s.id.DID, Active: true, Rev: s.repo.Head().Rev}, nil
}

// listedRepo is listRepos#repo.
type listedRepo struct {
	DID    string `json:"did"`
	Head   string `json:"head"`
	Rev    string `json:"rev"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"` // of an account that is not active
}

// listRepos is com.atproto.sync.listRepos. There is one repo, and every cursor,
// "<time>::<did>" as at the reference server, is after it.
func (s *Server) listRepos(c *xrpc.Call) (any, error) {
	page := struct {
		Cursor string       `json:"cursor,omitempty"`
		Repos  []listedRepo `json:"repos"`
	}{Repos: []listedRepo{}}
	switch cursor := c.Param("cursor"); {
	case cursor == "":
		head, status := s.repo.Head(), s.status()
		page.Repos = append(page.Repos, listedRepo{s.id.DID, head.Commit.String(), head.Rev, status == "", status})
		page.Cursor = fmt.Sprintf("0::%s", s.id.DID)
	case !validReposCursor(cursor):
		return nil, errMalformedCursor
	}
	return page, nil
}

func validReposCursor(cursor string) bool {
	at, did, ok := strings.Cut(cursor, "::")
	_, err := strconv.ParseInt(at, 10, 64)
	return ok && err == nil && did != ""
}

var errMalformedCursor = xrpc.InvalidRequest("Malformed cursor")
