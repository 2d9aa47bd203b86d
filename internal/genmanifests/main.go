// Genmanifests writes the manifests in testdata/manifests: for every kind of artifact
// the exact bytes of a push, with the member order and indentation of the tool that
// creates it. Run it in the root of the module:
//
//	go run ./internal/genmanifests
//
// lists/pushes.json lists them with file, media type, digest and tag (empty: pushed by
// digest), children before their index. lists/blobs.json has the contents of all blobs
// by digest: a few words that a test can push, because a registry does not check the
// sizes in manifests, which are invented. A registry accepts foreign-layers.json only if
// its configuration allows URLs in manifests. The output is deterministic.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/distribution/v3"
	_ "github.com/distribution/distribution/v3/manifest/manifestlist"
	_ "github.com/distribution/distribution/v3/manifest/ocischema"
	_ "github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	inToto         = "application/vnd.in-toto+json"
	dsse           = "application/vnd.dsse.envelope.v1+json"
	bundle         = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// Indentation of the tools.
const (
	docker   = "   "
	buildkit = "  "
	compact  = ""
)

// push is one entry of lists/pushes.json.
type push struct {
	File      string        `json:"file"`
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Tag       string        `json:"tag"`
	What      string        `json:"what"`
}

func main() {
	dir := filepath.Join("testdata", "manifests")
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := writeAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "genmanifests:", err)
		os.Exit(1)
	}
}

type writer struct {
	dir    string
	pushes []push
	err    error
}

// write encodes a manifest, checks that distribution accepts it, and returns its
// descriptor for an index.
func (w *writer) write(file, mediaType, tag, indent, what string, manifest any) v1.Descriptor {
	payload, err := encode(manifest, indent)
	if err == nil {
		_, _, err = distribution.UnmarshalManifest(mediaType, payload)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir, file), payload, 0o644)
	}
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%s: %w", file, err)
	}
	d := digest.FromBytes(payload)
	w.pushes = append(w.pushes, push{file, mediaType, d, tag, what})
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(payload))}
}

func writeAll(dir string) error {
	w := &writer{dir: dir}
	image := images(w)
	oddImages(w)
	artifacts(w, image)
	if w.err != nil {
		return w.err
	}
	if err := os.MkdirAll(filepath.Join(dir, "lists"), 0o755); err != nil {
		return err
	}
	for file, list := range map[string]any{"pushes.json": w.pushes, "blobs.json": blobs} {
		b, err := encode(list, "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "lists", file), append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// encode returns JSON without a trailing newline and without escapes for <, >, &.
func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// blobs has the contents of all blobs of the manifests.
var blobs = map[digest.Digest]string{v1.DescriptorEmptyJSON.Digest: string(v1.DescriptorEmptyJSON.Data)}

func blob(mediaType, content string, size int64) v1.Descriptor {
	d := digest.FromString(content)
	blobs[d] = content
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}
}

func with(d v1.Descriptor, annotations ...string) v1.Descriptor {
	d.Annotations = map[string]string{}
	for i := 0; i < len(annotations); i += 2 {
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return d
}

func on(d v1.Descriptor, platform string) v1.Descriptor {
	parts := strings.Split(platform, "/")
	d.Platform = &v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) > 2 {
		d.Platform.Variant = parts[2]
	}
	return d
}

func ociImage(config v1.Descriptor, layers ...v1.Descriptor) v1.Manifest {
	if layers == nil {
		layers = []v1.Descriptor{}
	}
	return v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    layers,
	}
}

func ociIndex(manifests ...v1.Descriptor) v1.Index {
	return v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: manifests,
	}
}

// dockerDescriptor has Docker's member order.
type dockerDescriptor struct {
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Digest    digest.Digest `json:"digest"`
	URLs      []string      `json:"urls,omitempty"`
	Platform  *v1.Platform  `json:"platform,omitempty"`
}

type dockerDocument struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	Config        *dockerDescriptor  `json:"config,omitempty"`
	Layers        []dockerDescriptor `json:"layers,omitempty"`
	Manifests     []dockerDescriptor `json:"manifests,omitempty"`
}

func inDocker(d v1.Descriptor) dockerDescriptor {
	return dockerDescriptor{d.MediaType, d.Size, d.Digest, d.URLs, d.Platform}
}

func dockerImage(config v1.Descriptor, layers ...v1.Descriptor) dockerDocument {
	c := inDocker(config)
	doc := dockerDocument{SchemaVersion: 2, MediaType: dockerManifest, Config: &c}
	for _, l := range layers {
		doc.Layers = append(doc.Layers, inDocker(l))
	}
	return doc
}

func dockerIndex(manifests ...v1.Descriptor) dockerDocument {
	doc := dockerDocument{SchemaVersion: 2, MediaType: dockerList}
	for _, m := range manifests {
		doc.Manifests = append(doc.Manifests, inDocker(m))
	}
	return doc
}
