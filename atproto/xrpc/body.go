package xrpc

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// MaxInput is the size limit of a JSON body in bytes, as at the reference server.
const MaxInput = 1_000_000

const (
	bodyTimeout   = 30 * time.Second // for a whole JSON body, and for each read of another
	drainTimeout  = time.Second      // for the body of a request that was refused
	uploadTimeout = 30 * time.Minute // for a whole body that is not JSON
)

// LimitBodyTime limits the time from now on until the body has arrived. It
// matters for a body that is not read, too: net/http drains it before the
// connection and its slot are free again.
func (c *Call) LimitBodyTime(limit time.Duration) {
	_ = c.control().SetReadDeadline(time.Now().Add(min(limit, c.server.bodyTimeout())))
}

// unlimitBodyTime removes the limit, which would otherwise end the handler.
func (c *Call) unlimitBodyTime() { _ = c.control().SetReadDeadline(time.Time{}) }

func (c *Call) control() *http.ResponseController { return http.NewResponseController(c.writer) }

func (s *Server) bodyTimeout() time.Duration { return cmp.Or(s.BodyTimeout, bodyTimeout) }

// RequireBody refuses a request without a body.
func (c *Call) RequireBody() error {
	if c.ContentLength == 0 && len(c.TransferEncoding) == 0 && c.Header.Get("Content-Length") == "" {
		return InvalidRequest("A request body is expected but none was provided")
	}
	return nil
}

// MediaType returns the Content-Type without its parameters, which is required.
func (c *Call) MediaType() (string, error) {
	given := c.Header.Get("Content-Type")
	if given == "" {
		return "", InvalidRequest("Request encoding (Content-Type) required but not provided")
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err != nil {
		return "", wrongMediaType(given)
	}
	return mediaType, nil
}

// RequireMediaType refuses every other Content-Type.
func (c *Call) RequireMediaType(want string) error {
	mediaType, err := c.MediaType()
	if err == nil && mediaType != want {
		return wrongMediaType(c.Header.Get("Content-Type"))
	}
	return err
}

func wrongMediaType(given string) error {
	return InvalidRequest("Wrong request encoding (Content-Type): %.80s", given)
}

// readInput reads the JSON body of a procedure that has an input. The limits of
// size and time hold for the decompressed body as well. The body of a procedure
// without an input is not read.
func (c *Call) readInput() error {
	if !lexicon.HasInput(c.NSID) {
		return nil
	}
	if err := c.RequireMediaType("application/json"); err != nil {
		return err
	}
	limit := cmp.Or(c.InputLimit, MaxInput)
	if c.ContentLength > limit {
		return errTooLarge
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, c.ContentLength)+bytes.MinRead))
	if err := c.readBody(body, limit); err != nil {
		return err
	}
	c.unlimitBodyTime()
	raw := bytes.TrimPrefix(body.Bytes(), []byte("\ufeff")) // a byte order mark, which some clients send
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	input, err := lexicon.Input(c.NSID, raw)
	if errors.Is(err, lexicon.ErrSyntax) {
		return NewError(http.StatusBadRequest, "SyntaxError", err.Error())
	}
	if err != nil {
		return InvalidRequest("Input/%v", err)
	}
	c.Input = input
	return nil
}

func (c *Call) readBody(out *bytes.Buffer, limit int64) error {
	plain, err := c.decompress(http.MaxBytesReader(c.writer, c.Body, limit), errEncoding)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(io.LimitReader(plain, limit+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), int64(out.Len()) > limit:
		return errTooLarge
	case err != nil:
		return c.incomplete()
	}
	return nil
}

// Upload passes a body of any type to read while it arrives, decompressed. The
// body is refused if its Content-Length exceeds limit; read has to enforce the
// limit on the decompressed bytes. Each read of the body has its own time limit.
func (c *Call) Upload(limit int64, read func(io.Reader) error) error {
	if c.ContentLength > limit {
		return ErrUploadTooLarge
	}
	body := &uploadReader{c, time.Now().Add(uploadTimeout)}
	plain, err := c.decompress(body, errUploadEncoding)
	if err != nil {
		return err
	}
	watched := errorWatcher{Reader: plain}
	err = read(&watched)
	if watched.err != nil {
		return c.incomplete()
	}
	if err == nil {
		c.unlimitBodyTime() // after an error the limit is for the rest, which net/http drains
	}
	return err
}

// uploadReader limits the time of each read, and of all reads together.
type uploadReader struct {
	*Call
	end time.Time
}

func (r *uploadReader) Read(b []byte) (int, error) {
	deadline := time.Now().Add(r.server.bodyTimeout())
	if r.end.Before(deadline) {
		deadline = r.end
	}
	_ = r.control().SetReadDeadline(deadline) // not supported by every writer
	return r.Body.Read(b)
}

// errorWatcher keeps the error that a body ended with, other than io.EOF.
type errorWatcher struct {
	io.Reader
	err error
}

func (w *errorWatcher) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// decompress reads a body with a content coding that every client supports. For
// any other the error is unsupported.
func (c *Call) decompress(body io.Reader, unsupported *Error) (plain io.Reader, err error) {
	switch strings.ToLower(c.Header.Get("Content-Encoding")) {
	case "", "identity":
		return body, nil
	case "gzip":
		plain, err = gzip.NewReader(body)
	case "deflate":
		plain, err = zlib.NewReader(body)
	default:
		return nil, unsupported
	}
	if err != nil {
		return nil, c.incomplete()
	}
	return plain, nil
}

// incomplete is the error for a body that could not be read to its end.
func (c *Call) incomplete() error {
	if c.Header.Get("Content-Encoding") != "" {
		return errCompressed
	}
	return errIncomplete
}
