package middleware

import (
	"context"
	"errors"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier"
)

// remove lets inner remove a manifest or a tag, with an intent around it. The
// event is completed at once: it has happened, whatever status the request ends
// with.
func (h *Handler) remove(ctx context.Context, d notifier.Delete, inner func() error) error {
	intent, err := h.intendDelete(ctx, d)
	if err != nil {
		return h.undeletable(ctx, d, err)
	}
	known := false
	defer func() {
		if !known {
			intent.Release() // inner panicked, or failed after it may have done something
		}
	}()
	err = inner()
	switch {
	case err == nil, isGone(err) && d.Tag == "":
		// Records of a manifest that is gone may be left from a delete that was
		// interrupted.
		known = true
		if failed := h.completeDelete(ctx, intent); failed != nil {
			h.unrecorded(ctx, d, failed)
		}
	case isGone(err), errors.Is(err, distribution.ErrUnsupported), errors.Is(err, digest.ErrDigestUnsupported), errors.Is(err, digest.ErrDigestInvalidFormat):
		known = true
		intent.Abandon()
	}
	return err
}

func (h *Handler) intendDelete(ctx context.Context, d notifier.Delete) (Intent, error) {
	safe, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return h.recorder.IntendDelete(safe, d)
}

func (h *Handler) completeDelete(ctx context.Context, intent Intent) error {
	safe, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return intent.Complete(safe)
}

// isGone reports whether storage does not have what was to be removed.
func isGone(err error) bool {
	var noTag distribution.ErrTagUnknown
	var noManifest distribution.ErrManifestUnknownRevision
	var noRepository distribution.ErrRepositoryUnknown
	var noPath driver.PathNotFoundError
	return errors.Is(err, distribution.ErrBlobUnknown) || errors.As(err, &noTag) || errors.As(err, &noManifest) ||
		errors.As(err, &noRepository) || errors.As(err, &noPath)
}

// undeletable refuses a delete that could not be noted.
func (h *Handler) undeletable(ctx context.Context, d notifier.Delete, err error) error {
	h.metrics.unrecorded("delete")
	h.log.Error("a delete was refused because it could not be noted; nothing was deleted",
		"repository", d.Repository, "tag", d.Tag, "digest", d.Digest, "request", d.RequestID, "err", err)
	if c := callOf(ctx); c != nil {
		c.undeletable(d, err)
	}
	return errcode.ErrorCodeUnavailable.WithMessage("the delete could not be recorded and nothing was deleted")
}

// unrecorded notes a delete that happened and whose event is not durable.
func (h *Handler) unrecorded(ctx context.Context, d notifier.Delete, err error) {
	h.metrics.unrecorded("delete")
	h.log.Error("a delete happened but could not be recorded; storage is asked again later",
		"repository", d.Repository, "tag", d.Tag, "digest", d.Digest, "request", d.RequestID, "err", err)
	if c := callOf(ctx); c != nil {
		c.unrecorded(d, err)
	}
}
