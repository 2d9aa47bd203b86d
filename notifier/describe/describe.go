// Package describe describes what a push has brought: the sizes, layers and platforms of
// its images.
package describe

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A Description is what posts and the API show of an image or an index: what storage
// has, not what the manifest declares. It is also a row in the state.
type Description struct {
	Images     int      `json:"images"`              // images that a client can pull; of an image 1
	Size       int64    `json:"size,omitempty"`      // bytes of the largest image, without manifests, since a client pulls one; 0: not known
	Total      int64    `json:"total,omitempty"`     // bytes of all images of an index, each blob once; 0: not known
	Layers     int      `json:"layers,omitempty"`    // of the largest image
	LayerSizes []int64  `json:"-"`                   // of the largest image, in bytes, as layerSizes returns them; nil: not known
	Platforms  []string `json:"platforms,omitempty"` // of all images, each once, up to event.MaxPlatforms
}

// Limits of what is read from storage for one description. The size of an index that
// exceeds them is not known.
const (
	maxDescribed = 64              // manifests
	maxSized     = 1024            // blobs
	maxNested    = 4               // indexes in an index
	maxConfig    = 1 << 20         // bytes of a config, which has the platform
	maxConfigs   = 5 * time.Second // for reading all configs
)

// Stored describes an image, or an index with everything that it lists, as storage has
// them. stored.ErrNotStored and stored.ErrUnreadable are about the manifest itself. What
// an index lists and storage does not have is left out, since it can't be pulled.
func Stored(ctx context.Context, storage *stored.Checked, repository, digest string) (Description, error) {
	d := describer{
		storage: storage, repository: repository, manifests: maxDescribed, blobs: maxSized,
		patience: maxConfigs, seen: map[string]bool{}, sizes: map[string]int64{}, all: map[string]int64{},
	}
	err := d.manifest(ctx, digest, nil, maxNested)
	if err == nil {
		err = ctx.Err() // a platform may be missing because of it
	}
	if err != nil {
		return Description{}, err
	}
	if d.unknown {
		d.found.Size = 0
		return d.found, nil
	}
	if d.found.Images > 1 {
		d.found.Total = event.SumSizes(d.all)
	}
	return d.found, nil
}

type describer struct {
	storage    *stored.Checked
	repository string
	manifests  int           // that may still be read
	blobs      int           // whose sizes may still be read
	patience   time.Duration // that reading configs may still take
	seen       map[string]bool
	sizes      map[string]int64 // of blobs; -1: storage does not have it, or can't read it
	all        map[string]int64 // sizes of the blobs of all images
	found      Description
	unknown    bool // the size of an image is not known
}

// manifest adds a manifest. platform is the one that the index declares for it, or
// nil.
func (d *describer) manifest(ctx context.Context, digest string, platform *lexicon.Platform, depth int) error {
	if d.seen[digest] {
		return nil
	}
	if d.manifests == 0 || depth < 0 {
		d.unknown = true
		return nil
	}
	d.manifests--
	d.seen[digest] = true
	mediaType, payload, err := d.storage.Manifest(ctx, d.repository, digest)
	if err != nil {
		return err
	}
	info, err := event.ReadManifest(mediaType, payload)
	if err != nil {
		return nil // not an image
	}
	switch event.KindOf(&info, "") {
	case event.KindIndex:
		return d.index(ctx, &info, depth)
	case event.KindImage:
		return d.image(ctx, &info, platform)
	}
	return nil
}

func (d *describer) index(ctx context.Context, index *lexicon.ManifestInfo, depth int) error {
	for _, m := range index.Manifests {
		if event.NoPlatform(m.Platform) || m.Digest == "" {
			continue
		}
		err := d.manifest(ctx, m.Digest, m.Platform, depth-1)
		if err != nil && !errors.Is(err, stored.ErrNotStored) && !errors.Is(err, stored.ErrUnreadable) {
			return err
		}
	}
	return nil
}

func (d *describer) image(ctx context.Context, image *lexicon.ManifestInfo, platform *lexicon.Platform) error {
	size, err := d.size(ctx, image)
	if err != nil {
		return err
	}
	if platform == nil {
		platform = d.platform(ctx, image.Config)
	}
	d.unknown = d.unknown || size == 0
	if d.found.Images == 0 || size > d.found.Size {
		d.found.Size, d.found.Layers = size, len(image.Layers)
		d.found.LayerSizes = layerSizes(image, func(l lexicon.Descriptor) int64 { return d.sizes[l.Digest] })
	}
	d.found.Images++
	d.found.Platforms = event.AddPlatform(d.found.Platforms, platform)
	return nil
}

// size is like sizeOf, with the sizes that the blobs have in storage.
func (d *describer) size(ctx context.Context, image *lexicon.ManifestInfo) (int64, error) {
	blobs := event.BlobsOf(image)
	var digests []string
	for digest := range blobs {
		if _, done := d.sizes[digest]; done || digest == "" {
			continue
		}
		if size, known := d.storage.KnownSize(d.repository, digest); known {
			d.sizes[digest] = size
			continue
		}
		digests = append(digests, digest)
	}
	if len(digests) > d.blobs {
		return 0, nil
	}
	d.blobs -= len(digests)
	found := make([]int64, len(digests))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	for i, digest := range digests {
		g.Go(func() (err error) {
			found[i], err = d.storage.BlobSize(gctx, d.repository, digest)
			if errors.Is(err, stored.ErrNotStored) || errors.Is(err, stored.ErrUnreadable) {
				found[i], err = -1, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for i, digest := range digests {
		d.sizes[digest] = found[i]
	}
	for digest := range blobs {
		blobs[digest] = d.sizes[digest]
		if digest == "" {
			blobs[digest] = -1
		}
		d.all[digest] = blobs[digest]
	}
	return event.SumSizes(blobs), nil
}

// platform is the one in an image's config, which may have any JSON there. It is optional:
// nil if the config can't be read, for whatever reason, or takes too long.
func (d *describer) platform(ctx context.Context, config *lexicon.Descriptor) *lexicon.Platform {
	if config == nil || config.Digest == "" || d.patience <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	start := time.Now()
	content, err := d.storage.Blob(ctx, d.repository, config.Digest, maxConfig)
	d.patience -= time.Since(start)
	var platform lexicon.Platform
	if err != nil || json.Unmarshal(content, &platform) != nil {
		return nil
	}
	return &platform
}

// Declared is the description that a manifest gives of itself, for use when storage
// can't be asked.
func Declared(e *event.Event) Description {
	if e.Kind != event.KindIndex {
		return Description{Images: 1, Size: event.SizeOf(&e.Manifest), Layers: len(e.Manifest.Layers),
			LayerSizes: layerSizes(&e.Manifest, func(l lexicon.Descriptor) int64 { return l.Size })}
	}
	d := Description{Platforms: event.PlatformsOf(&e.Manifest)}
	for _, m := range e.Manifest.Manifests {
		if !event.NoPlatform(m.Platform) && m.ArtifactType == "" {
			d.Images++
		}
	}
	return d
}
