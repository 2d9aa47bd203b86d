package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/testdata/pds"
)

const (
	collection = "io.atcr.hold.layer"
	maxKeys    = 20_000 // kept of what was written, to be read
)

// target is a server under measurement.
type target struct {
	*pds.Server
	http   *http.Client
	access string

	mu      sync.Mutex
	records int
	keys    []string
}

func newTarget(ctx context.Context, s *pds.Server) (*target, error) {
	access, _, err := s.Login(ctx)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	return &target{Server: s, access: access, http: &http.Client{Transport: transport, Timeout: time.Minute}}, nil
}

// fill brings the repository up to n records.
func (t *target) fill(ctx context.Context, n int) error {
	for t.records < n {
		if _, err := t.write(ctx, min(200, n-t.records)); err != nil {
			return err
		}
	}
	return nil
}

// write is one applyWrites call of n creates. It returns the new revision.
func (t *target) write(ctx context.Context, n int) (rev string, err error) {
	body := t.batch(n)
	answer, err := t.call(ctx, http.MethodPost, "com.atproto.repo.applyWrites", body)
	if err != nil {
		return "", err
	}
	var done struct {
		Commit  struct{ Rev string }
		Results []struct{ URI string }
	}
	if err := json.Unmarshal(answer, &done); err != nil || len(done.Results) != n {
		return "", fmt.Errorf("%d results for %d writes: %w", len(done.Results), n, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records += n
	for _, r := range done.Results {
		key := r.URI[strings.LastIndexByte(r.URI, '/')+1:]
		if len(t.keys) < maxKeys {
			t.keys = append(t.keys, key)
		} else {
			t.keys[rand.IntN(maxKeys)] = key
		}
	}
	return done.Commit.Rev, nil
}

// batch is a body of n layers, as a push makes them; no two are the same.
func (t *target) batch(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"repo":%q,"writes":[`, t.DID)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		digest := sha256.Sum256([]byte(fmt.Sprint(rand.Uint64())))
		fmt.Fprintf(&b, `{"$type":"com.atproto.repo.applyWrites#create","collection":%q,"value":{"$type":%[1]q,"digest":"sha256:%x","size":%d,`+
			`"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","manifest":"at://%s/io.atcr.manifest/%x","userDid":%[4]q,"createdAt":"2026-01-02T03:04:05Z"}}`,
			collection, digest, rand.IntN(1<<30), t.DID, digest)
	}
	b.WriteString("]}")
	return b.Bytes()
}

// key is one that was written.
func (t *target) key() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[rand.IntN(len(t.keys))]
}

// call is an XRPC call that has to succeed.
func (t *target) call(ctx context.Context, verb, method string, body []byte) ([]byte, error) {
	res, err := t.send(ctx, verb, method, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

func (t *target) send(ctx context.Context, verb, method string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, verb, t.URL+"/xrpc/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if verb == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+t.access)
	}
	res, err := t.http.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return nil, fmt.Errorf("%s: %d %s", method, res.StatusCode, text)
	}
	return res, nil
}
