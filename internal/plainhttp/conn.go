// Package plainhttp is an HTTP/1.1 client for benchmarks. It uses less CPU time than
// net/http's, which would slow down the servers on the same cores.
package plainhttp

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

// timeout bounds a request, including the body of the response.
const timeout = time.Minute

// A Conn is a persistent connection, opened at its first use. It is not safe for
// concurrent use.
type Conn struct {
	addr  string
	c     net.Conn
	r     *bufio.Reader
	out   bytes.Buffer
	close bool // the server closes the connection after this response
}

// New returns a connection to addr, a host:port.
func New(addr string) *Conn { return &Conn{addr: addr} }

// Do sends a request. Header has lines that end with \r\n. The body of the response
// must be read completely before the next request.
func (c *Conn) Do(method, path, header string, body []byte) (*http.Response, error) {
	if c.close {
		c.Close()
	}
	if c.c == nil {
		nc, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
		if err != nil {
			return nil, err
		}
		c.c, c.r = nc, bufio.NewReader(nc)
	}
	c.out.Reset()
	c.out.WriteString(method + " " + path + " HTTP/1.1\r\nHost: " + c.addr + "\r\nUser-Agent: bench\r\n" + header)
	if method != http.MethodGet && method != http.MethodHead {
		c.out.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	c.out.WriteString("\r\n")
	c.out.Write(body)
	answer, err := c.exchange(method)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	c.close = answer.Close
	return answer, nil
}

func (c *Conn) exchange(method string) (*http.Response, error) {
	if err := c.c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(c.out.Bytes()); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, &http.Request{Method: method})
}

// Ask is Do and reads the body, up to 64 MiB. The status must be want.
func (c *Conn) Ask(method, path, header string, body []byte, want int) (*http.Response, []byte, error) {
	answer, err := c.Do(method, path, header, body)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	_ = answer.Body.Close()
	if err == nil && answer.StatusCode != want {
		err = fmt.Errorf("got status %d, want %d: %.300s", answer.StatusCode, want, text)
	}
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer, text, nil
}

// Close closes the connection. The next request opens a new one.
func (c *Conn) Close() {
	if c.c != nil {
		_ = c.c.Close()
	}
	c.c, c.close = nil, false
}
