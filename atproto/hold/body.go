package hold

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// maxUploads is how many bodies that are not JSON may come in at a time.
const maxUploads = 4

var (
	errBodyEnded  = invalidRequest("the request body ended too early or took too long")
	errEncoding   = &Error{http.StatusUnsupportedMediaType, "UnsupportedMediaTypeError", "unsupported content encoding"}
	errCompressed = invalidRequest("the request body is not compressed as its Content-Encoding says, ended too early or took too long")
)

// unread is the error for a body that could not be read to its end.
func (c *call) unread() error {
	if c.Header.Get("Content-Encoding") != "" {
		return errCompressed
	}
	return errBodyEnded
}

// mediaType is what a caller says the body is, without parameters.
func (c *call) mediaType() (string, error) {
	if c.ContentLength == 0 && len(c.TransferEncoding) == 0 && c.Header.Get("Content-Length") == "" {
		return "", invalidRequest("A request body is expected but none was provided")
	}
	given := c.Header.Get("Content-Type")
	if given == "" {
		return "", invalidRequest("Request encoding (Content-Type) required but not provided")
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err != nil {
		return "", invalidRequest("Wrong request encoding (Content-Type): %.80s", given)
	}
	return mediaType, nil
}

// readBody reads a body of up to most bytes, both as it comes and decompressed.
func (c *call) readBody(out *bytes.Buffer, most int64) error {
	plain, err := c.decompressed(http.MaxBytesReader(c.writer, c.Body, most), errEncoding)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(io.LimitReader(plain, most+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), int64(out.Len()) > most:
		return errTooLarge
	case err != nil:
		return c.unread()
	}
	return nil
}

// decompressed reads a body that may have one of the encodings that every client
// knows. For any other the error is unknown.
func (c *call) decompressed(body io.Reader, unknown *Error) (plain io.Reader, err error) {
	switch strings.ToLower(c.Header.Get("Content-Encoding")) {
	case "", "identity":
		return body, nil
	case "gzip":
		plain, err = gzip.NewReader(body)
	case "deflate":
		plain, err = zlib.NewReader(body)
	default:
		return nil, unknown
	}
	if err != nil {
		return nil, c.unread()
	}
	return plain, nil
}

// noting keeps the error that a body ended with, unless that was its end.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(b []byte) (int, error) {
	size, err := n.Reader.Read(b)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return size, err
}

// receive hands a body of up to limit bytes to read as it comes, decompressed.
func (s *Server) receive(c *call, limit int64, read func(io.Reader) error) error {
	if c.ContentLength > limit {
		return errUploadTooLarge
	}
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return s.tooMany(c, time.Minute)
	}
	body := newPacedReader(c.writer, c.Body, s.bodyTimeout)
	plain, err := c.decompressed(body, errUploadEncoding)
	if err != nil {
		return err
	}
	whole := noting{Reader: plain}
	err = read(&whole)
	if whole.err != nil {
		return c.unread()
	}
	if err == nil {
		body.done() // else the limit is for the rest of the body, which the server drains
	}
	return err
}

// The reference has other names for the same in JSON bodies.
var (
	errUploadTooLarge = &Error{http.StatusRequestEntityTooLarge, "PayloadTooLarge", "request entity too large"}
	errUploadEncoding = &Error{http.StatusUnsupportedMediaType, "UnsupportedMediaType", "unsupported content-encoding"}
)
