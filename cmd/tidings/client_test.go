package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// client is a minimal registry client, for tests that send many requests and must
// know which of them were answered.
type client struct {
	host string
	http *http.Client
}

func newClient(host string) *client {
	return &client{host, &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 300}}}
}

func (c *client) do(method, path, contentType string, body []byte, header ...string) (*http.Response, []byte, error) {
	url := path
	if !strings.HasPrefix(path, "http") {
		url = "http://" + c.host + path
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res, answer, err
}

// blob uploads content with a POST and a PUT.
func (c *client) blob(repository string, content []byte) error {
	res, body, err := c.do("POST", "/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusAccepted {
		return fmt.Errorf("begin upload: %s: %s", res.Status, body)
	}
	location := strings.TrimPrefix(res.Header.Get("Location"), "https://registry.example.com") // the public address of some tests
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	res, body, err = c.do("PUT", location+sep+"digest="+digest.FromBytes(content).String(), "application/octet-stream", content)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("upload: %s: %s", res.Status, body)
	}
	return nil
}

// image is a manifest with its blobs.
type image struct {
	mediaType string
	payload   []byte
	blobs     [][]byte
	digest    string
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

func newImage(layers int) image {
	m := image{mediaType: ociManifest}
	add := func(mediaType string, content []byte) map[string]any {
		m.blobs = append(m.blobs, content)
		return map[string]any{"mediaType": mediaType, "digest": digest.FromBytes(content).String(), "size": len(content)}
	}
	body := map[string]any{
		"schemaVersion": 2,
		"mediaType":     ociManifest,
		"config":        add("application/vnd.oci.image.config.v1+json", fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","x":%d}`, rand.Int64())),
	}
	var list []any
	for range layers {
		list = append(list, add("application/vnd.oci.image.layer.v1.tar+gzip", fmt.Appendf(nil, "layer %d", rand.Int64())))
	}
	body["layers"] = list
	m.payload, _ = json.Marshal(body)
	m.digest = digest.FromBytes(m.payload).String()
	return m
}

// upload uploads the blobs of an image.
func (c *client) upload(repository string, m image) error {
	for _, b := range m.blobs {
		if err := c.blob(repository, b); err != nil {
			return err
		}
	}
	return nil
}

// put puts a manifest and returns the status, 0 if there was no response.
func (c *client) put(repository, reference string, m image) (int, error) {
	res, body, err := c.do("PUT", "/v2/"+repository+"/manifests/"+reference, m.mediaType, m.payload)
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusCreated {
		return res.StatusCode, fmt.Errorf("put manifest: %s: %s", res.Status, body)
	}
	return res.StatusCode, nil
}

// get gets a manifest; the error reports an incomplete response.
func (c *client) get(repository, reference string) (int, error) {
	// With another user agent than pushes; a GET by the pusher would not be counted.
	res, _, err := c.do("GET", "/v2/"+repository+"/manifests/"+reference, "", nil, "Accept", acceptAll, "User-Agent", "puller")
	if err != nil {
		return 0, err
	}
	return res.StatusCode, nil
}

const acceptAll = ociManifest + ", application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// json gets a path of the API and decodes the response.
func (c *client) json(t *testing.T, path string, into any, header ...string) {
	t.Helper()
	res, body, err := c.do("GET", path, "", nil, header...)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s: %s", path, res.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("GET %s: %v: %s", path, err, body)
	}
}

// push pushes an image, or fails the test.
func (c *client) push(t *testing.T, repository, tag string, m image) {
	t.Helper()
	if err := c.upload(repository, m); err != nil {
		t.Fatal(err)
	}
	if _, err := c.put(repository, tag, m); err != nil {
		t.Fatal(err)
	}
}

// records lists all records of a collection.
func (c *client) records(t *testing.T, did, collection string) []record {
	t.Helper()
	var all []record
	cursor := ""
	for {
		var page struct {
			Records []record `json:"records"`
			Cursor  string   `json:"cursor"`
		}
		c.json(t, "/xrpc/com.atproto.repo.listRecords?limit=100&repo="+did+"&collection="+collection+"&cursor="+cursor, &page)
		all = append(all, page.Records...)
		if page.Cursor == "" || len(page.Records) == 0 {
			return all
		}
		cursor = page.Cursor
	}
}

type record struct {
	URI   string         `json:"uri"`
	CID   string         `json:"cid"`
	Value map[string]any `json:"value"`
}

// head sends a HEAD request for a manifest.
func (c *client) head(t *testing.T, name, reference string) *http.Response {
	t.Helper()
	res, _, err := c.do("HEAD", "/v2/"+name+"/manifests/"+reference, "", nil, "Accept", acceptAll)
	if err != nil {
		t.Fatal(err)
	}
	return res
}
