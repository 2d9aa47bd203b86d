package hold

import (
	"errors"
	"io"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const defaultImportLimit = 256 << 20

// MaxBody is the largest request body in bytes that any method takes.
const MaxBody = defaultImportLimit

// importRepo is com.atproto.repo.importRepo: the repository becomes what the
// CAR has.
func (s *Server) importRepo(c *xrpc.Call) (any, error) {
	if err := s.here(); err != nil {
		return nil, err
	}
	if err := c.RequireBody(); err != nil {
		return nil, err
	}
	if err := c.RequireMediaType("application/vnd.ipld.car"); err != nil {
		return nil, err
	}
	err := s.upload(c, s.importLimit, func(body io.Reader) error {
		_, err := s.repo.Import(c.Context(), body, s.importLimit)
		return err
	})
	switch {
	case errors.Is(err, repo.ErrTooLarge):
		return nil, xrpc.ErrUploadTooLarge
	case errors.Is(err, repo.ErrInvalidCAR):
		return nil, xrpc.InvalidRequest("%v", err)
	case err != nil:
		return nil, err
	}
	return xrpc.Empty{}, nil
}
