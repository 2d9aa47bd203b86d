package repo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// ErrBadCAR: what was to be imported is not one whole repository of this
// account. The text around it says why.
var ErrBadCAR = errors.New("not a repository to import")

func badCAR(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadCAR, fmt.Errorf(format, args...))
}

// carFile is a CAR whose blocks lie in a file, since they come in any order
// and are too many to hold. Every hash was checked.
type carFile struct {
	file   vfs.File
	root   cid.Cid
	blocks map[digest]span
}

type span struct {
	at   int64
	size int32
}

// spool reads a CAR of up to limit bytes into file.
func spool(in io.Reader, limit int64, file vfs.File) (*carFile, error) {
	body := &countingReader{in: in, left: limit}
	r, err := car.NewCarReader(body)
	if err != nil {
		return nil, body.explain(err)
	}
	if len(r.Header.Roots) != 1 {
		return nil, badCAR("expected one root")
	}
	c := &carFile{file, r.Header.Roots[0], map[digest]span{}}
	out := bufio.NewWriterSize(file, 64<<10)
	at := int64(0)
	for {
		b, err := r.Next()
		if err == io.EOF && !body.over {
			break
		}
		if err != nil {
			return nil, body.explain(err)
		}
		if !ours(b.Cid()) {
			continue // a blob, say: those are uploaded
		}
		c.blocks[digest(digestOf(b.Cid()))] = span{at, int32(len(b.RawData()))}
		n, err := out.Write(b.RawData())
		if err != nil {
			return nil, diskFull(err)
		}
		at += int64(n)
	}
	return c, diskFull(out.Flush())
}

// block reads a block; nil if the CAR doesn't have it.
func (c *carFile) block(id cid.Cid) ([]byte, error) {
	if !ours(id) {
		return nil, nil
	}
	s, ok := c.blocks[digest(digestOf(id))]
	if !ok {
		return nil, nil
	}
	data := make([]byte, s.size)
	if _, err := c.file.ReadAt(data, s.at); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read spooled block %s: %w", id, err)
	}
	return data, nil
}

func (c *carFile) commit() (indigo.Commit, error) {
	var commit indigo.Commit
	data, err := c.block(c.root)
	if err != nil {
		return commit, err
	}
	if data == nil {
		return commit, badCAR("its root %s is missing", c.root)
	}
	if err := commit.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return commit, badCAR("its root %s is not a commit", c.root)
	}
	if err := commit.VerifyStructure(); err != nil {
		return commit, badCAR("its commit: %w", err)
	}
	return commit, nil
}

// imported is a record of a CAR.
type imported struct {
	path  string
	cid   cid.Cid
	here  bool // the CAR has its bytes
	blobs []digest
}

// maxHeight is more layers than a tree can have: a key has 256 bits of hash.
const maxHeight = 130

// records walks the tree under a node. Keys must grow, so no node is visited
// twice and the walk ends. Whether it is the right tree for its records is
// found out when it is built anew.
func (c *carFile) records(node cid.Cid, depth int, found []imported) ([]imported, error) {
	if depth > maxHeight {
		return nil, badCAR("its tree is too deep")
	}
	data, err := c.block(node)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, badCAR("node %s is missing", node)
	}
	n, err := decodeNode(node, data)
	if err != nil {
		return nil, badCAR("node %s is damaged", node)
	}
	if n.Left != nil {
		if found, err = c.records(*n.Left, depth+1, found); err != nil {
			return nil, err
		}
	}
	var path []byte
	for _, e := range n.Entries {
		if e.PrefixLen < 0 || e.PrefixLen > int64(len(path)) {
			return nil, badCAR("node %s is damaged", node)
		}
		path = append(path[:e.PrefixLen:e.PrefixLen], e.KeySuffix...)
		if len(found) > 0 && found[len(found)-1].path >= string(path) {
			return nil, badCAR("its keys are out of order at %.200q", path)
		}
		record, err := c.record(string(path), e.Value)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
		if e.Right == nil {
			continue
		}
		if found, err = c.records(*e.Right, depth+1, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// record checks one, if its bytes are here.
func (c *carFile) record(path string, id cid.Cid) (imported, error) {
	if err := ValidPath(splitPath(path)); err != nil {
		return imported{}, badCAR("%w", err)
	}
	if !ours(id) {
		return imported{}, badCAR("Could not parse record at '%s'", path)
	}
	data, err := c.block(id)
	if err != nil || data == nil {
		return imported{path: path, cid: id}, err
	}
	if len(data) > maxRecord {
		return imported{}, badCAR("record at '%s' is of %d bytes, at most %d", path, len(data), maxRecord)
	}
	if _, err := lexicon.Unmarshal(data); err != nil {
		return imported{}, badCAR("Could not parse record at '%s': %w", path, err)
	}
	blobs, err := blobsOf(change{cid: id, record: data})
	return imported{path, id, true, blobs}, err
}

// countingReader ends a body that is too long, and tells that from one that is
// no CAR.
type countingReader struct {
	in   io.Reader
	left int64
	over bool
	err  error
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	if r.left -= int64(n); r.left < 0 {
		r.over = true
		return 0, io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *countingReader) explain(err error) error {
	switch {
	case r.over:
		return fmt.Errorf("%w: more than may be imported", ErrTooLarge)
	case r.err != nil:
		return r.err
	}
	return badCAR("%w", err)
}
