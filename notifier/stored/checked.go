package stored

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tidings-dev/tidings/internal/generations"
)

// ErrUnreadable is returned for something that storage can't read although it answers
// other requests: a damaged file. Waiting does not help, so the caller trusts
// the event.
var ErrUnreadable = errors.New("damaged in the registry's storage")

const (
	// MaxFailures is how often storage may fail for one thing before it is asked
	// whether it answers for another.
	MaxFailures = 5
	// maxFailing is how many things are remembered that storage has failed for.
	maxFailing = 1024
)

// checkedStorage is a Storage that distinguishes a damaged file from a storage that is
// not available. Both fail, but a damaged file would hold up all later events forever. A
// nil *checkedStorage stands for a storage that can't be asked.
type Checked struct {
	Reader
	log *slog.Logger

	mu     sync.Mutex
	failed map[string]int // failures in a row, by repository and reference

	// The pushes of a repository share most of their layers, and the size of a blob
	// never changes, so sizes are kept.
	sizesMu sync.Mutex
	sizes   generations.Map[string, int64] // by repository and digest
}

// keptSizes take about a megabyte.
const keptSizes = 4096

func NewChecked(s Reader, log *slog.Logger) *Checked {
	return &Checked{Reader: s, log: log, sizes: generations.New[string, int64](keptSizes)}
}

// Has is Storage's, or returns ErrUnreadable.
func (s *Checked) Has(ctx context.Context, repository, digest string) (has bool, err error) {
	has, err = s.Reader.Has(ctx, repository, digest)
	return has, s.check(ctx, repository, digest, err)
}

// Tagged is Storage's, or returns ErrUnreadable.
func (s *Checked) Tagged(ctx context.Context, repository, tag string) (digest string, err error) {
	digest, err = s.Reader.Tagged(ctx, repository, tag)
	return digest, s.check(ctx, repository, tag, err)
}

// Manifest is Storage's, or returns ErrUnreadable.
func (s *Checked) Manifest(ctx context.Context, repository, digest string) (mediaType string, payload []byte, err error) {
	mediaType, payload, err = s.Reader.Manifest(ctx, repository, digest)
	return mediaType, payload, s.check(ctx, repository, digest, err)
}

// BlobSize is Storage's, or returns ErrUnreadable.
func (s *Checked) BlobSize(ctx context.Context, repository, digest string) (size int64, err error) {
	size, err = s.Reader.BlobSize(ctx, repository, digest)
	if err == nil {
		s.sizesMu.Lock()
		s.sizes.Put(repository+"@"+digest, size, 1)
		s.sizesMu.Unlock()
	}
	return size, s.check(ctx, repository, digest, err)
}

// KnownSize returns the size of a blob that BlobSize has returned before.
func (s *Checked) KnownSize(repository, digest string) (int64, bool) {
	s.sizesMu.Lock()
	defer s.sizesMu.Unlock()
	return s.sizes.Get(repository + "@" + digest)
}

// Blob is Storage's, or returns ErrUnreadable.
func (s *Checked) Blob(ctx context.Context, repository, digest string, limit int64) (content []byte, err error) {
	content, err = s.Reader.Blob(ctx, repository, digest, limit)
	return content, s.check(ctx, repository, digest, err)
}

// unusedDigest is the digest of no manifest.
const unusedDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func (s *Checked) check(ctx context.Context, repository, reference string, err error) error {
	id := repository + "\x00" + reference
	if err == nil || errors.Is(err, ErrNotStored) {
		s.mu.Lock()
		delete(s.failed, id)
		s.mu.Unlock()
		return err
	}
	if ctx.Err() != nil { // possibly because another request of a group failed
		return err
	}
	if s.countFailure(id) < MaxFailures {
		return err
	}
	if _, probe := s.Reader.Has(ctx, repository, unusedDigest); probe != nil {
		return err
	}
	s.log.Error("storage can't read a manifest, tag or blob", "repository", repository, "reference", reference, "error", err)
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}

func (s *Checked) countFailure(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil || len(s.failed) >= maxFailing {
		s.failed = map[string]int{}
	}
	s.failed[id]++
	return s.failed[id]
}
