package hold

import (
	"bytes"
	"io"
	"strconv"
	"sync"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// proofs are buffers of a proof's size, which is 2 to 8 KiB as a rule.
var proofs = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 8<<10)) }}

// syncGetRecord is com.atproto.sync.getRecord: the signed commit, the nodes
// down to where the record is or would be, and the record. Without a record it
// is a proof of absence.
func (s *Server) syncGetRecord(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	if err := s.mustBeHead(c, "commit"); err != nil {
		return nil, err
	}
	car := proofs.Get().(*bytes.Buffer)
	car.Reset()
	if err := s.repo.Proof(car, c.Param("collection"), c.Param("rkey")); err != nil {
		return nil, err
	}
	c.Response.Set("Content-Length", strconv.Itoa(car.Len()))
	return carOf(func(out io.Writer) error {
		_, err := out.Write(car.Bytes())
		if car.Cap() <= 64<<10 {
			proofs.Put(car)
		}
		return err
	}), nil
}
