package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// errUnreadable says that storage answers, but not for what was asked: a file of
// it is damaged. Waiting does not help, so the event is believed.
var errUnreadable = errors.New("storage has it in a form that can't be read")

// patience is how often storage fails for one thing before it is asked whether
// it answers for another.
const patience = 5

// maxDoubts is how many things are remembered that storage has failed for.
const maxDoubts = 1024

// patient is a Storage that tells a storage that is away from one that has a
// damaged file, which would hold up every event behind it without end.
type patient struct {
	Storage
	log *slog.Logger

	mu     sync.Mutex
	failed map[string]int
}

// Has is Storage's, or errUnreadable.
func (p *patient) Has(ctx context.Context, repository, digest string) (has bool, err error) {
	has, err = p.Storage.Has(ctx, repository, digest)
	return has, p.judge(ctx, repository, digest, err)
}

// Tagged is Storage's, or errUnreadable.
func (p *patient) Tagged(ctx context.Context, repository, tag string) (digest string, err error) {
	digest, err = p.Storage.Tagged(ctx, repository, tag)
	return digest, p.judge(ctx, repository, tag, err)
}

// Manifest is Storage's, or errUnreadable.
func (p *patient) Manifest(ctx context.Context, repository, digest string) (mediaType string, payload []byte, err error) {
	mediaType, payload, err = p.Storage.Manifest(ctx, repository, digest)
	return mediaType, payload, p.judge(ctx, repository, digest, err)
}

// BlobSize is Storage's, or errUnreadable.
func (p *patient) BlobSize(ctx context.Context, repository, digest string) (size int64, err error) {
	size, err = p.Storage.BlobSize(ctx, repository, digest)
	return size, p.judge(ctx, repository, digest, err)
}

// Blob is Storage's, or errUnreadable.
func (p *patient) Blob(ctx context.Context, repository, digest string, most int64) (content []byte, err error) {
	content, err = p.Storage.Blob(ctx, repository, digest, most)
	return content, p.judge(ctx, repository, digest, err)
}

// noDigest is of no manifest that anybody has.
const noDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func (p *patient) judge(ctx context.Context, repository, reference string, err error) error {
	id := repository + "\x00" + reference
	if err == nil || errors.Is(err, ErrNotStored) {
		p.mu.Lock()
		delete(p.failed, id)
		p.mu.Unlock()
		return err
	}
	if ctx.Err() != nil { // also since another question failed
		return err
	}
	if p.doubts(id) < patience {
		return err
	}
	if _, probe := p.Storage.Has(ctx, repository, noDigest); probe != nil {
		return err
	}
	p.log.Error("storage has something that can't be read", "repository", repository, "reference", reference, "err", err)
	return fmt.Errorf("%w: %w", errUnreadable, err)
}

func (p *patient) doubts(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil || len(p.failed) >= maxDoubts {
		p.failed = map[string]int{}
	}
	p.failed[id]++
	return p.failed[id]
}
