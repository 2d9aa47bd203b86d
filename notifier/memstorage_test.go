package notifier

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// memStorage is a Storage in memory.
type memStorage struct {
	mu        sync.Mutex
	manifests map[string]map[string]Push   // by repository and digest
	tags      map[string]map[string]string // by repository and tag
	down      bool
	damaged   string                      // digest of a damaged manifest
	blobs     map[string][]byte           // by digest
	sizes     map[string]map[string]int64 // by repository and digest, of the blobs that manifests declare
	lost      string                      // digest of a missing blob
	asked     atomic.Int64                // requests for manifests and blobs
	lookups   atomic.Int64                // calls of Has
}

func newMemStorage() *memStorage {
	return &memStorage{manifests: map[string]map[string]Push{}, tags: map[string]map[string]string{}, sizes: map[string]map[string]int64{}}
}

func (s *memStorage) put(p Push) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manifests[p.Repository] == nil {
		s.manifests[p.Repository], s.tags[p.Repository] = map[string]Push{}, map[string]string{}
		s.sizes[p.Repository] = map[string]int64{}
	}
	s.manifests[p.Repository][p.Digest] = p
	if info, err := event.ReadManifest(p.MediaType, p.Payload); err == nil {
		maps.Copy(s.sizes[p.Repository], event.BlobsOf(&info))
	}
	if p.Tag != "" {
		s.tags[p.Repository][p.Tag] = p.Digest
	}
}

// remove removes the manifest and the tags that point to it.
func (s *memStorage) remove(p Push) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.manifests[p.Repository], p.Digest)
	maps.DeleteFunc(s.tags[p.Repository], func(_, digest string) bool { return digest == p.Digest })
}

func (s *memStorage) untag(p Push) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tags[p.Repository], p.Tag)
}

func (s *memStorage) fail(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

var errStorageDown = errors.New("storage is down")

func (s *memStorage) Manifest(_ context.Context, repository, digest string) (string, []byte, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.manifests[repository][digest]
	switch {
	case s.down || repository == "" || s.damaged == digest:
		return "", nil, errStorageDown
	case !ok:
		return "", nil, stored.ErrNotStored
	}
	return p.MediaType, p.Payload, nil
}

func (s *memStorage) BlobSize(_ context.Context, repository, digest string) (int64, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || repository == "" {
		return 0, errStorageDown
	}
	if digest == s.lost {
		return 0, stored.ErrNotStored
	}
	if content, ok := s.blobs[digest]; ok {
		return int64(len(content)), nil
	}
	if size, ok := s.sizes[repository][digest]; ok {
		return size, nil
	}
	return 0, stored.ErrNotStored
}

func (s *memStorage) Blob(_ context.Context, repository, digest string, limit int64) ([]byte, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.blobs[digest]
	switch {
	case s.down || repository == "":
		return nil, errStorageDown
	case !ok || int64(len(content)) > limit:
		return nil, stored.ErrNotStored
	}
	return content, nil
}

func (s *memStorage) Has(ctx context.Context, repository, digest string) (bool, error) {
	s.lookups.Add(1)
	_, _, err := s.Manifest(ctx, repository, digest)
	if errors.Is(err, stored.ErrNotStored) {
		return false, nil
	}
	return err == nil, err
}

func (s *memStorage) Tagged(_ context.Context, repository, tag string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	digest, ok := s.tags[repository][tag]
	switch {
	case s.down || repository == "":
		return "", errStorageDown
	case !ok:
		return "", stored.ErrNotStored
	}
	return digest, nil
}

func (s *memStorage) Tags(_ context.Context, repository string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errStorageDown
	}
	return slices.Collect(maps.Keys(s.tags[repository])), nil
}

func (s *memStorage) Repositories(_ context.Context, visit func(string) error) error {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.manifests))
	s.mu.Unlock()
	for _, name := range names {
		if err := visit(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *memStorage) Manifests(_ context.Context, repository string, visit func(string) error) error {
	s.mu.Lock()
	digests := slices.Sorted(maps.Keys(s.manifests[repository]))
	s.mu.Unlock()
	for _, digest := range digests {
		if err := visit(digest); err != nil {
			return err
		}
	}
	return nil
}
