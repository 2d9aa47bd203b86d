package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/generations"
)

// A description is what readers are told of an image or an index, as storage has
// it and not as a pusher declares it.
type description struct {
	Images    int      `json:"images"`              // that a client can pull; of an image 1
	Size      int64    `json:"size,omitempty"`      // bytes that a client pulls of the largest of them, beside manifests; 0: not known
	Layers    int      `json:"layers,omitempty"`    // of the largest
	Platforms []string `json:"platforms,omitempty"` // of all, each once, up to maxPlatforms
}

// What storage is asked for one description. An index that holds more has no
// size.
const (
	maxDescribed = 64      // manifests
	maxSized     = 1024    // blobs
	maxNested    = 4       // indexes in an index
	maxConfig    = 1 << 20 // bytes of a config that is read for its platform
)

// describe walks an image, or an index with all that it lists. ErrNotStored or
// errUnreadable is about the manifest itself; what an index lists and storage does
// not have is left out, for nobody can pull it.
func (n *Notifier) describe(ctx context.Context, repository, digest string) (description, error) {
	d := describer{
		storage: n.Storage, known: &n.blobSizes, repository: repository, manifests: maxDescribed, blobs: maxSized,
		seen: map[string]bool{}, sizes: map[string]int64{},
	}
	if err := d.manifest(ctx, digest, nil, maxNested); err != nil {
		return description{}, err
	}
	if d.unknown {
		d.found.Size = 0
	}
	return d.found, nil
}

// blobSizes remembers what storage said: the pushes of a repository share most of
// their layers, and the size of a blob never changes. It is safe for concurrent
// use.
type blobSizes struct {
	mu    sync.Mutex
	sizes generations.Map[string, int64] // by repository and digest
}

// rememberedSizes is about a megabyte of digests and names.
const rememberedSizes = 4096

func (b *blobSizes) get(repository, digest string) (int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sizes.Get(repository + "@" + digest)
}

func (b *blobSizes) put(repository, digest string, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes.Put(repository+"@"+digest, size, 1)
}

type describer struct {
	storage    Storage
	known      *blobSizes
	repository string
	manifests  int // that may be read
	blobs      int // whose sizes may be asked for
	seen       map[string]bool
	sizes      map[string]int64 // of blobs; -1: storage has it not, or can't say
	found      description
	unknown    bool // there are images whose size is not known
}

// manifest adds a manifest. platform is what the index says of it, if it does.
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
	info, err := readManifest(mediaType, payload)
	if err != nil {
		return nil // not a manifest of a kind that is shown
	}
	switch kindOf(&info, "") {
	case KindIndex:
		return d.index(ctx, &info, depth)
	case KindImage:
		return d.image(ctx, &info, platform)
	}
	return nil
}

func (d *describer) index(ctx context.Context, index *lexicon.ManifestInfo, depth int) error {
	for _, m := range index.Manifests {
		if noPlatform(m.Platform) || m.Digest == "" {
			continue
		}
		err := d.manifest(ctx, m.Digest, m.Platform, depth-1)
		if err != nil && !errors.Is(err, ErrNotStored) && !errors.Is(err, errUnreadable) {
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
		if platform, err = d.platform(ctx, image.Config); err != nil {
			return err
		}
	}
	d.unknown = d.unknown || size == 0
	if d.found.Images == 0 || size > d.found.Size {
		d.found.Size, d.found.Layers = size, len(image.Layers)
	}
	d.found.Images++
	d.found.Platforms = addPlatform(d.found.Platforms, platform)
	return nil
}

// size is that of sizeOf, with the sizes that the blobs have in storage.
func (d *describer) size(ctx context.Context, image *lexicon.ManifestInfo) (int64, error) {
	blobs := blobsOf(image)
	var digests []string
	for digest := range blobs {
		if _, asked := d.sizes[digest]; asked || digest == "" {
			continue
		}
		if size, ok := d.known.get(d.repository, digest); ok {
			d.sizes[digest] = size
			continue
		}
		digests = append(digests, digest)
	}
	if len(digests) > d.blobs {
		return 0, nil
	}
	d.blobs -= len(digests)
	stored := make([]int64, len(digests))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, digest := range digests {
		g.Go(func() (err error) {
			stored[i], err = d.storage.BlobSize(gctx, d.repository, digest)
			if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
				stored[i], err = -1, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for i, digest := range digests {
		d.sizes[digest] = stored[i]
		if stored[i] >= 0 {
			d.known.put(d.repository, digest, stored[i])
		}
	}
	for digest := range blobs {
		blobs[digest] = d.sizes[digest]
		if digest == "" {
			blobs[digest] = -1
		}
	}
	return sum(blobs), nil
}

// platform is what an image's config says. A config may hold anything there.
func (d *describer) platform(ctx context.Context, config *lexicon.Descriptor) (*lexicon.Platform, error) {
	if config == nil || config.Digest == "" {
		return nil, nil
	}
	content, err := d.storage.Blob(ctx, d.repository, config.Digest, maxConfig)
	if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var said lexicon.Platform
	if json.Unmarshal(content, &said) != nil {
		return nil, nil
	}
	return &said, nil
}

// declared is what a manifest says of itself, where storage can't be asked.
func declared(e *Event) description {
	if e.Kind != KindIndex {
		return description{Images: 1, Size: sizeOf(&e.Manifest), Layers: len(e.Manifest.Layers)}
	}
	d := description{Platforms: platformsOf(&e.Manifest)}
	for _, m := range e.Manifest.Manifests {
		if !noPlatform(m.Platform) && m.ArtifactType == "" {
			d.Images++
		}
	}
	return d
}
