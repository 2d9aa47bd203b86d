package hold

import (
	"errors"
	"io"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// defaultBlobLimit is the reference server's.
const defaultBlobLimit = 5 << 20

// uploadBlob is com.atproto.repo.uploadBlob. What a blob is its own bytes say,
// where they are of a known kind, else the caller.
func (s *Server) uploadBlob(c *call) (any, error) {
	if err := s.here(); err != nil {
		return nil, err
	}
	declared, err := c.mediaType()
	if err != nil {
		return nil, err
	}
	var blob repo.Blob
	err = s.receive(c, s.blobLimit, func(body io.Reader) (err error) {
		blob, err = s.repo.Upload(c.Context(), body, s.blobLimit, func(head []byte) string {
			if known := sniff(head); known != "" {
				return known
			}
			return declared
		})
		return err
	})
	if errors.Is(err, repo.ErrTooLarge) {
		return nil, errUploadTooLarge
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"blob": map[string]any{
		"$type":    "blob",
		"ref":      map[string]string{"$link": blob.CID.String()},
		"mimeType": blob.MimeType,
		"size":     blob.Size,
	}}, nil
}
