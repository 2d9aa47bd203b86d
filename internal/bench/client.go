package main

import (
	"net/http"

	"github.com/tidings-dev/tidings/internal/plainhttp"
)

// A conn is a client's connection to a registry.
type conn struct{ *plainhttp.Conn }

func dial(addr string) *conn { return &conn{plainhttp.New(addr)} }

const accept = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json\r\n"

// do sends a request and reads the response, whose status must be want.
func (c *conn) do(method, path, contentType string, body []byte, want int) (http.Header, error) {
	header := accept
	if contentType != "" {
		header += "Content-Type: " + contentType + "\r\n"
	}
	answer, _, err := c.Ask(method, path, header, body, want)
	if err != nil {
		return nil, err
	}
	return answer.Header, nil
}
