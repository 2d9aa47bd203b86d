package hold

import (
	"errors"
	"io"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// defaultBlobLimit is the reference server's.
const defaultBlobLimit = 5 << 20

// uploadBlob is com.atproto.repo.uploadBlob. What a blob is its own bytes say,
// where they are of a known kind, else the caller.
func (s *Server) uploadBlob(c *xrpc.Call) (any, error) {
	if err := s.here(); err != nil {
		return nil, err
	}
	if err := c.RequireBody(); err != nil {
		return nil, err
	}
	declared, err := c.MediaType()
	if err != nil {
		return nil, err
	}
	var blob repo.Blob
	err = s.upload(c, s.blobLimit, func(body io.Reader) (err error) {
		blob, err = s.repo.Upload(c.Context(), body, s.blobLimit, func(head []byte) string {
			if known := sniff(head); known != "" {
				return known
			}
			return declared
		})
		return err
	})
	if errors.Is(err, repo.ErrTooLarge) {
		return nil, xrpc.ErrUploadTooLarge
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

// maxUploads is how many bodies that are not JSON may arrive at a time.
const maxUploads = 4

// upload passes a body to read while it arrives, if there is a free slot.
func (s *Server) upload(c *xrpc.Call, limit int64, read func(io.Reader) error) error {
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return xrpc.TooManyRequests(time.Minute)
	}
	return c.Upload(limit, read)
}
