package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/internal/plainhttp"
)

const (
	collection = "io.atcr.hold.layer"
	maxKeys    = 20_000 // kept keys of written records
)

// target is a server under measurement.
type target struct {
	*pds.Server
	access string // header lines

	mu      sync.Mutex
	idle    []*plainhttp.Conn
	records int
	keys    []string
}

func newTarget(ctx context.Context, s *pds.Server) (*target, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return nil, err
	}
	return &target{Server: s, access: "Authorization: Bearer " + access + "\r\nContent-Type: application/json\r\n"}, nil
}

// fill writes records until the repo has n.
func (t *target) fill(ctx context.Context, n int) error {
	for t.records < n {
		if _, err := t.write(ctx, min(200, n-t.records)); err != nil {
			return err
		}
	}
	return nil
}

// write creates n records with one applyWrites request and returns the new revision.
func (t *target) write(ctx context.Context, n int) (rev string, err error) {
	answer, err := t.call(ctx, http.MethodPost, "com.atproto.repo.applyWrites", t.batch(n))
	if err != nil {
		return "", err
	}
	keys := members(answer, `"uri":"`)
	revs := members(answer, `"rev":"`)
	if len(keys) != n || len(revs) != 1 {
		return "", fmt.Errorf("%d results and %d commits for %d writes: %.300s", len(keys), len(revs), n, answer)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records += n
	for _, uri := range keys {
		key := string(uri[bytes.LastIndexByte(uri, '/')+1:])
		if len(t.keys) < maxKeys {
			t.keys = append(t.keys, key)
		} else {
			t.keys[rand.IntN(maxKeys)] = key
		}
	}
	return string(revs[0]), nil
}

// members returns the text between each occurrence of begin and the next quote.
// Decoding the JSON would take CPU time from the server.
func members(text []byte, begin string) [][]byte {
	var found [][]byte
	for {
		_, rest, ok := bytes.Cut(text, []byte(begin))
		if !ok {
			return found
		}
		end := max(bytes.IndexByte(rest, '"'), 0)
		found = append(found, rest[:end])
		text = rest[end:]
	}
}

// batch returns a request body with n unique layer records.
func (t *target) batch(n int) []byte {
	b := append(make([]byte, 0, 64+600*n), `{"repo":"`+t.DID+`","writes":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"$type":"com.atproto.repo.applyWrites#create","collection":"`+collection+`","value":{"$type":"`+collection+`","digest":"sha256:`...)
		digest := len(b)
		for range 4 {
			b = fmt.Appendf(b, "%016x", rand.Uint64())
		}
		hex := b[digest:len(b):len(b)]
		b = append(b, `","size":`...)
		b = strconv.AppendInt(b, rand.Int64N(1<<30), 10)
		b = append(b, `,"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","manifest":"at://`+t.DID+`/io.atcr.manifest/`...)
		b = append(b, hex...)
		b = append(b, `","userDid":"`+t.DID+`","createdAt":"2026-01-02T03:04:05Z"}}`...)
	}
	return append(b, "]}"...)
}

// key returns a random written key.
func (t *target) key() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[rand.IntN(len(t.keys))]
}

// call sends an XRPC request that must succeed.
func (t *target) call(ctx context.Context, verb, method string, body []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := t.conn()
	defer t.release(c)
	_, answer, err := c.Ask(verb, "/xrpc/"+method, t.header(verb), body, http.StatusOK)
	return answer, err
}

// download sends a request and returns the size of the response.
func (t *target) download(method string) (int64, error) {
	c := t.conn()
	defer t.release(c)
	answer, err := c.Do(http.MethodGet, "/xrpc/"+method, "", nil)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", method, answer.StatusCode)
	}
	if err != nil {
		c.Close()
	}
	return n, err
}

// subscribe connects to the firehose. The query may have a cursor.
func (t *target) subscribe(ctx context.Context, query string) (*websocket.Conn, error) {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(t.URL, "http")+"/xrpc/com.atproto.sync.subscribeRepos"+query, nil)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return conn, nil
}

func (t *target) header(verb string) string {
	if verb == http.MethodPost {
		return t.access
	}
	return ""
}

// conn returns an idle or new connection.
func (t *target) conn() *plainhttp.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.idle); n > 0 {
		c := t.idle[n-1]
		t.idle = t.idle[:n-1]
		return c
	}
	return plainhttp.New(strings.TrimPrefix(t.URL, "http://"))
}

func (t *target) release(c *plainhttp.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = append(t.idle, c)
}

// closeIdle closes the connections, because the server may close them before their
// next use.
func (t *target) closeIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idle {
		c.Close()
	}
	t.idle = nil
}
