package hold

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// syncGetRecord is com.atproto.sync.getRecord: the signed commit, the nodes
// down to where the record is or would be, and the record. Without a record it
// is a proof of absence.
func (s *Server) syncGetRecord(c *call) (any, error) {
	if err := s.ownDID(c); err != nil {
		return nil, err
	}
	if err := s.mustBeHead(c, "commit"); err != nil {
		return nil, err
	}
	path := c.param("collection") + "/" + c.param("rkey")
	var root cid.Cid
	var blocks []block
	var err error
	for range maxRaces {
		head := s.repo.Head()
		root = head.Commit
		// A commit that comes between may drop what we are about to read.
		if blocks, err = s.prove(head, path); !errors.Is(err, repo.ErrNotFound) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prove %s: %w", path, err)
	}
	return carOf(func(out io.Writer) error { return writeCAR(out, root, blocks...) }), nil
}

func (s *Server) prove(head repo.Head, path string) ([]block, error) {
	data, err := s.repo.Block(head.Commit)
	if err != nil {
		return nil, err
	}
	blocks := []block{{head.Commit, data}}
	for next, isNode := head.Data, true; next.Defined(); {
		if data, err = s.repo.Block(next); err != nil {
			return nil, err
		}
		blocks = append(blocks, block{next, data})
		if !isNode {
			break
		}
		if next, isNode, err = step(data, path); err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

// step says where the search for path goes on from a node: to the record, to
// another node, or nowhere.
func step(data []byte, path string) (next cid.Cid, isNode bool, err error) {
	node, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return cid.Undef, false, err
	}
	below := node.Left
	key := ""
	for _, entry := range node.Entries {
		if entry.PrefixLen < 0 || entry.PrefixLen > int64(len(key)) {
			return cid.Undef, false, errors.New("damaged node")
		}
		key = key[:entry.PrefixLen] + string(entry.KeySuffix)
		if key == path {
			return entry.Value, false, nil
		}
		if key > path {
			break
		}
		below = entry.Right
	}
	if below == nil {
		return cid.Undef, false, nil
	}
	return *below, true, nil
}
