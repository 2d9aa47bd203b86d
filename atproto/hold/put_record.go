package hold

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// putRecord is com.atproto.repo.putRecord: create or update. The same content
// again answers the same and makes no commit.
func (s *Server) putRecord(c *xrpc.Call) (any, error) {
	w, answer, err := s.planRecord(c, c.Field("rkey"))
	if err != nil {
		return nil, err
	}
	if _, old, err := s.repo.Get(w.Collection, w.RKey); err == nil && bytes.Equal(old, w.Record) {
		return answer.written(block.CIDOf(w.Record), nil), nil // whatever was to be swapped
	}
	var done repo.Result
	wrote, err := s.change(c, w.Collection, w.RKey, func(old []byte, swap *cid.Cid) (bool, error) {
		w.Action = repo.Update
		if old == nil {
			w.Action = repo.Create
		}
		if bytes.Equal(old, w.Record) {
			return false, nil
		}
		done, err = s.apply(c, []repo.Write{w}, swap)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	if !wrote {
		return answer.written(block.CIDOf(w.Record), nil), nil
	}
	return answer.written(done.CIDs[0], metaOf(done)), nil
}

// maxRaces is how often a change that others overtook is tried.
const maxRaces = 20

// change reads a record, holds it against swapRecord and swapCommit, and lets
// try write on top of the very head that was read. When another commit came
// between and the caller did not name one, it begins again.
func (s *Server) change(c *xrpc.Call, collection, rkey string, try func(old []byte, swap *cid.Cid) (bool, error)) (wrote bool, err error) {
	named, err := swapCID(c, "swapCommit")
	if err != nil {
		return false, err
	}
	for range maxRaces {
		head := s.repo.Head().Commit
		if named != nil && *named != head {
			return false, &repo.SwapError{Head: head}
		}
		was, old, err := s.repo.Get(collection, rkey)
		if err != nil && !errors.Is(err, repo.ErrNotFound) {
			return false, err
		}
		if err := checkSwapRecord(c, was); err != nil {
			return false, err
		}
		wrote, err = try(old, &head)
		var overtaken *repo.SwapError
		if !errors.As(err, &overtaken) || named != nil {
			return wrote, err
		}
	}
	return false, xrpc.NewError(http.StatusServiceUnavailable, "ServiceUnavailable", "too many other writes came between: try again")
}

// checkSwapRecord holds the member swapRecord, a CID or null for "there is
// none", against what is there.
func checkSwapRecord(c *xrpc.Call, was cid.Cid) error {
	value, given := c.Input["swapRecord"]
	if !given {
		return nil
	}
	want, err := swapCID(c, "swapRecord")
	if err != nil {
		return err
	}
	if value == nil && !was.Defined() || want != nil && *want == was {
		return nil
	}
	if !was.Defined() {
		return xrpc.NewError(http.StatusBadRequest, "InvalidSwap", "Record was at null")
	}
	return xrpc.NewError(http.StatusBadRequest, "InvalidSwap", "Record was at "+was.String())
}
