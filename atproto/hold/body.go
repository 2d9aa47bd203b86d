package hold

import (
	"mime"
	"net/http"
	"time"
)

// maxUploads is how many bodies that are not JSON may come in at a time.
const maxUploads = 4

var errBodyEnded = invalidRequest("the request body ended too early or took too long")

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
	if encoding := c.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return "", &Error{http.StatusUnsupportedMediaType, "UnsupportedMediaType", "unsupported content-encoding"}
	}
	return mediaType, nil
}

// receive hands a body of up to limit bytes to read as it comes.
func (s *Server) receive(c *call, limit int64, read func(*pacedReader) error) error {
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
	err := read(body)
	if body.err != nil {
		return errBodyEnded
	}
	if err == nil {
		body.done() // else the limit is for the rest of the body, which the server drains
	}
	return err
}

var errUploadTooLarge = &Error{http.StatusRequestEntityTooLarge, "PayloadTooLarge", "request entity too large"}
