package hold

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// defaultBlobLimit is the reference server's, in bytes.
const defaultBlobLimit = 5 << 20

// maxUploads limits the uploads in progress.
const maxUploads = 4

// upload passes a body that is not JSON to read while it arrives.
func (s *Server) upload(c *xrpc.Call, limit int64, read func(io.Reader) error) error {
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return xrpc.TooManyRequests(time.Minute)
	}
	return c.Upload(limit, read)
}

// uploadBlob is com.atproto.repo.uploadBlob. The media type of the blob is the one
// that its content shows, or else the client's.
func (s *Server) uploadBlob(c *xrpc.Call) (any, error) {
	if err := s.requireActive(); err != nil {
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
			if known := mediaType(head); known != "" {
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

// getBlob is com.atproto.sync.getBlob. The headers keep browsers from running the
// content.
func (s *Server) getBlob(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	id, err := cid.Decode(c.Param("cid"))
	if err != nil {
		return nil, xrpc.InvalidRequest("Invalid com.atproto.sync.getBlob params: %v at $.cid", err)
	}
	blob, err := s.repo.Blob(id)
	if err != nil {
		return nil, blobNotFound(err)
	}
	c.Response.Set("Content-Length", strconv.FormatInt(blob.Size, 10))
	c.Response.Set("Content-Disposition", `attachment; filename="`+blob.CID.String()+`"`)
	c.Response.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	return xrpc.Stream{ContentType: blob.MimeType, Write: func(out io.Writer) error {
		content, err := s.repo.OpenBlob(blob)
		if err != nil {
			return blobNotFound(err)
		}
		defer content.Close()
		ctx, cancel := context.WithTimeout(c.Context(), exportTimeout)
		defer cancel()
		_, err = io.Copy(contextWriter{ctx, out}, content)
		return err
	}}, nil
}

func blobNotFound(err error) error {
	if errors.Is(err, repo.ErrBlobNotFound) {
		return xrpc.InvalidRequest("Blob not found")
	}
	return err
}

// listBlobs is com.atproto.sync.listBlobs: the blobs that records refer to. The
// older range of commits is accepted as in getRepo.
func (s *Server) listBlobs(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	since, err := s.sinceRev(c)
	if err != nil {
		return nil, err
	}
	after, err := cidCursor(c)
	if err != nil {
		return nil, err
	}
	var found []cid.Cid
	list := func(ctx context.Context) (err error) {
		found, err = s.repo.ListBlobs(ctx, since, after, limitParam(c))
		return err
	}
	if since == "" {
		err = list(c.Context())
	} else {
		err = s.inSlot(c, searchTimeout, list) // reads the event log
	}
	if err != nil {
		return nil, err
	}
	page := struct {
		Cursor string   `json:"cursor,omitempty"` // the last CID
		CIDs   []string `json:"cids"`
	}{CIDs: make([]string, len(found))}
	for i, id := range found {
		page.CIDs[i] = id.String()
		page.Cursor = page.CIDs[i]
	}
	return page, nil
}

// cidCursor returns the parameter cursor of methods where it is a CID; cid.Undef if
// it is not given.
func cidCursor(c *xrpc.Call) (cid.Cid, error) {
	id, err := cidParam(c, "cursor")
	if err != nil {
		return cid.Undef, errMalformedCursor
	}
	return id, nil
}

// missingBlob is listMissingBlobs#recordBlob.
type missingBlob struct {
	CID       string `json:"cid"`
	RecordURI string `json:"recordUri"`
}

// listMissingBlobs is com.atproto.repo.listMissingBlobs: the blobs that have to be
// uploaded after importRepo.
func (s *Server) listMissingBlobs(c *xrpc.Call) (any, error) {
	after, err := cidCursor(c)
	if err != nil {
		return nil, err
	}
	found, err := s.repo.MissingBlobs(after, limitParam(c))
	if err != nil {
		return nil, err
	}
	page := struct {
		Cursor string        `json:"cursor,omitempty"` // the last CID
		Blobs  []missingBlob `json:"blobs"`
	}{Blobs: make([]missingBlob, len(found))}
	for i, b := range found {
		page.Blobs[i] = missingBlob{b.CID.String(), s.uri(b.Collection, b.RKey)}
		page.Cursor = page.Blobs[i].CID
	}
	return page, nil
}
