package hold

import (
	"errors"
	"io"

	"github.com/tidings-dev/tidings/atproto/repo"
)

const defaultImportLimit = 256 << 20

// MaxBody is the largest request body in bytes that any method takes.
const MaxBody = defaultImportLimit

// importRepo is com.atproto.repo.importRepo: the repository becomes what the
// CAR has.
func (s *Server) importRepo(c *call) (any, error) {
	if err := s.here(); err != nil {
		return nil, err
	}
	mediaType, err := c.mediaType()
	if err != nil {
		return nil, err
	}
	if mediaType != "application/vnd.ipld.car" {
		return nil, invalidRequest("Wrong request encoding (Content-Type): %.80s", mediaType)
	}
	err = s.receive(c, s.importLimit, func(body io.Reader) error {
		_, err := s.repo.Import(c.Context(), body, s.importLimit)
		return err
	})
	switch {
	case errors.Is(err, repo.ErrTooLarge):
		return nil, errUploadTooLarge
	case errors.Is(err, repo.ErrBadCAR):
		return nil, invalidRequest("%v", err)
	case err != nil:
		return nil, err
	}
	return nothing{}, nil
}
