package hold

import (
	"io"
	"strconv"
)

// syncGetRecord is com.atproto.sync.getRecord: the signed commit, the nodes
// down to where the record is or would be, and the record. Without a record it
// is a proof of absence.
func (s *Server) syncGetRecord(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	if err := s.mustBeHead(c, "commit"); err != nil {
		return nil, err
	}
	car, err := s.repo.Proof(c.param("collection"), c.param("rkey"))
	if err != nil {
		return nil, err
	}
	c.reply.Set("Content-Length", strconv.Itoa(len(car)))
	return carOf(func(out io.Writer) error {
		_, err := out.Write(car)
		return err
	}), nil
}
