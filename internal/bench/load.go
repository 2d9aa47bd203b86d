package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A row is a kind of load. op does operation n; no other operation on this server
// has the same number.
type row struct {
	name string
	op   func(c *conn, n int64) error
}

var rows = []row{
	{"pull by tag", pull},
	{"push of a manifest", pushManifest},
	{"push of an image", pushImage},
}

const (
	repositories = 10
	tags         = 5
	manifestType = "application/vnd.oci.image.manifest.v1+json"
)

func repository(n int64) string { return fmt.Sprintf("bench/r%d", n%repositories) }

// seed pushes the images that are pulled and the blobs of the manifests.
func (s *server) seed() error {
	c := dial(s.addr)
	defer c.Close()
	for r := range int64(repositories) {
		for _, blob := range [][]byte{config, layer(0)} {
			if err := pushBlob(c, repository(r), blob); err != nil {
				return err
			}
		}
		for t := range int64(tags) {
			if err := putManifest(c, repository(r), fmt.Sprintf("t%d", t), layer(0), -1-r*tags-t); err != nil {
				return err
			}
		}
	}
	return nil
}

func pull(c *conn, n int64) error {
	path := fmt.Sprintf("/v2/%s/manifests/t%d", repository(n), n/repositories%tags)
	_, err := c.do(http.MethodGet, path, "", nil, http.StatusOK)
	return err
}

// pushManifest puts a new manifest with existing blobs under a new tag.
func pushManifest(c *conn, n int64) error {
	return putManifest(c, repository(n), fmt.Sprintf("m%d", n), layer(0), n)
}

// pushImage pushes an image with one new layer: layer, config and manifest, in five
// requests.
func pushImage(c *conn, n int64) error {
	name, blob := repository(n), layer(n+1)
	if err := pushBlob(c, name, blob); err != nil {
		return err
	}
	if err := pushBlob(c, name, config); err != nil {
		return err
	}
	return putManifest(c, name, fmt.Sprintf("i%d", n), blob, n)
}

func pushBlob(c *conn, name string, blob []byte) error {
	header, err := c.do(http.MethodPost, "/v2/"+name+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	u, err := url.Parse(header.Get("Location"))
	if err != nil {
		return err
	}
	path := u.RequestURI()
	if strings.Contains(path, "?") {
		path += "&"
	} else {
		path += "?"
	}
	_, err = c.do(http.MethodPut, path+"digest="+digest(blob), "application/octet-stream", blob, http.StatusCreated)
	return err
}

func putManifest(c *conn, name, tag string, layer []byte, n int64) error {
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}],`+
		`"annotations":{"n":"%d"}}`,
		manifestType, digest(config), len(config), digest(layer), len(layer), n)
	_, err := c.do(http.MethodPut, "/v2/"+name+"/manifests/"+tag, manifestType, []byte(manifest), http.StatusCreated)
	return err
}

var config = []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)

// layer returns 1 KiB that is unique for n.
func layer(n int64) []byte {
	b := make([]byte, 1024)
	binary.BigEndian.PutUint64(b, uint64(n))
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A sample is the result of a turn.
type sample struct {
	rate     float64 // operations a second
	p50, p99 time.Duration
	cpu      time.Duration // of the server for one operation
}

// turn loads the server for p.turn with concurrent operations, and waits until it is
// idle.
func (s *server) turn(ctx context.Context, p pace, row row, concurrency int) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]*conn, concurrency)
	for i := range conns {
		conns[i] = dial(s.addr)
		defer conns[i].Close()
		if _, err := conns[i].do(http.MethodGet, "/v2/", "", nil, http.StatusOK); err != nil {
			return sample{}, err
		}
	}

	took := make([][]time.Duration, concurrency)
	cpu := s.CPU()
	began := time.Now()
	var left atomic.Int64
	left.Store(int64(p.ops))
	var workers sync.WaitGroup
	for i, c := range conns {
		workers.Go(func() {
			for start := time.Now(); start.Sub(began) < p.turn && ctx.Err() == nil && left.Add(-1) >= 0; {
				if err := row.op(c, s.next.Add(1)); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(start))
				start = now
			}
		})
	}
	workers.Wait()
	elapsed := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	if !s.WaitIdle(ctx, p.rest, p.settle) {
		s.busy++
	}
	cpu = s.CPU() - cpu

	all := slices.Concat(took...)
	if len(all) == 0 {
		return sample{}, fmt.Errorf("no operation completed within %s", p.turn)
	}
	slices.Sort(all)
	return sample{
		rate: float64(len(all)) / elapsed.Seconds(),
		p50:  all[len(all)/2],
		p99:  all[len(all)*99/100],
		cpu:  cpu / time.Duration(len(all)),
	}, nil
}
