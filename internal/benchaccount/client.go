package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/internal/plainhttp"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
)

// A client writes records like those of the registry, in full calls.
type client struct {
	pds    *pds.Server
	header string
	conn   *plainhttp.Conn
	inputs [][]byte // of the next calls
}

// newClient returns a client that has prepared n calls. The keys of the first ones are after
// all others, so that later neither the client nor the registry writes at the end of the
// tree, where it costs the PDS less.
func newClient(ctx context.Context, s *pds.Server, n int) (*client, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return nil, err
	}
	c := &client{pds: s, conn: plainhttp.New(strings.TrimPrefix(s.URL, "http://"))}
	c.header = "Authorization: Bearer " + access + "\r\nContent-Type: application/json\r\n"
	micros := time.Now().UnixMicro()
	for i := range n {
		at := micros + int64(i*2*delivery.MaxWrites)
		if i < warmUp {
			at += time.Hour.Microseconds()
		}
		input, err := call(s.DID, at)
		if err != nil {
			return nil, err
		}
		c.inputs = append(c.inputs, input)
	}
	return c, nil
}

// write makes n calls, one after another.
func (c *client) write(ctx context.Context, n int) (sample, error) {
	n = min(n, len(c.inputs))
	begun, cpu := time.Now(), c.pds.CPU()
	for _, input := range c.inputs[:n] {
		if ctx.Err() != nil {
			return sample{}, ctx.Err()
		}
		if _, _, err := c.conn.Ask(http.MethodPost, "/xrpc/com.atproto.repo.applyWrites", c.header, input, http.StatusOK); err != nil {
			return sample{}, err
		}
	}
	c.inputs = c.inputs[n:]
	return sample{records: n * delivery.MaxWrites, duration: time.Since(begun), cpu: c.pds.CPU() - cpu}, nil
}

// call returns the input of a call that creates the records of as many images as fit. Their
// keys begin at a time in microseconds.
func call(did string, micros int64) ([]byte, error) {
	type write struct {
		Type       string          `json:"$type"`
		Collection string          `json:"collection"`
		RKey       string          `json:"rkey"`
		Value      json.RawMessage `json:"value"`
	}
	var writes []write
	for i := range int64(delivery.MaxWrites / layers) {
		creates, err := newRecords(did, micros+i*(layers+1))
		if err != nil {
			return nil, err
		}
		for _, c := range creates {
			value, err := lexicon.ToJSON(c.Record)
			if err != nil {
				return nil, err
			}
			writes = append(writes, write{"com.atproto.repo.applyWrites#create", c.Collection, c.RKey, value})
		}
	}
	return json.Marshal(map[string]any{"repo": did, "writes": writes})
}

// newRecords returns the creates for the layers of a new image.
func newRecords(did string, micros int64) ([]repo.Write, error) {
	list := make([]event.Layer, layers)
	for i := range list {
		list[i] = event.Layer{Digest: newDigest(), Size: rand.Int64N(1 << 30), MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip"}
	}
	return records.Creates(did, newDigest(), list, ledger.Entry{First: micros, Records: layers})
}

func newDigest() string {
	var hex strings.Builder
	for range 4 {
		fmt.Fprintf(&hex, "%016x", rand.Uint64())
	}
	return "sha256:" + hex.String()
}
