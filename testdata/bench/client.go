package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// A conn is one kept-alive connection. It is plainer than net/http's client,
// which would take a good part of the cores that the servers need.
type conn struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	out  bytes.Buffer
}

func dial(addr string) *conn { return &conn{addr: addr} }

const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// do sends one request, reads the whole answer, and fails unless its status
// is want.
func (c *conn) do(method, path, contentType string, body []byte, want int) (http.Header, error) {
	if c.c == nil {
		nc, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
		if err != nil {
			return nil, err
		}
		c.c, c.r = nc, bufio.NewReader(nc)
	}
	c.out.Reset()
	c.out.WriteString(method + " " + path + " HTTP/1.1\r\nHost: " + c.addr + "\r\nUser-Agent: bench\r\nAccept: " + accept + "\r\n")
	if contentType != "" {
		c.out.WriteString("Content-Type: " + contentType + "\r\n")
	}
	if method != http.MethodGet {
		c.out.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	c.out.WriteString("\r\n")
	c.out.Write(body)

	answer, err := c.exchange()
	if err != nil {
		c.close()
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	_ = answer.Body.Close()
	if err != nil || answer.Close {
		c.close()
	}
	if err == nil && answer.StatusCode != want {
		err = fmt.Errorf("got status %d, want %d: %s", answer.StatusCode, want, text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer.Header, nil
}

func (c *conn) exchange() (*http.Response, error) {
	if err := c.c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(c.out.Bytes()); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, nil)
}

func (c *conn) close() {
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}
