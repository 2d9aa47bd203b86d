package hold

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// getBlob is com.atproto.sync.getBlob: the bytes as they were uploaded. Its
// headers keep a browser from running them.
func (s *Server) getBlob(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	id, err := cid.Decode(c.Param("cid"))
	if err != nil {
		return nil, xrpc.InvalidRequest("Invalid com.atproto.sync.getBlob params: %v at $.cid", err)
	}
	blob, err := s.repo.Blob(id)
	if err != nil {
		return nil, noBlob(err)
	}
	c.Response.Set("Content-Length", strconv.FormatInt(blob.Size, 10))
	c.Response.Set("Content-Disposition", `attachment; filename="`+blob.CID.String()+`"`)
	c.Response.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	return xrpc.Stream{ContentType: blob.MimeType, Write: func(out io.Writer) error {
		content, err := s.repo.OpenBlob(blob)
		if err != nil {
			return noBlob(err)
		}
		defer content.Close()
		ctx, cancel := context.WithTimeout(c.Context(), exportTimeout)
		defer cancel()
		_, err = io.Copy(untilDone{ctx, out}, content)
		return err
	}}, nil
}

func noBlob(err error) error {
	if errors.Is(err, repo.ErrBlobNotFound) {
		return xrpc.NewError(http.StatusBadRequest, "InvalidRequest", "Blob not found")
	}
	return err
}
