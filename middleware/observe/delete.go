package observe

import (
	"context"
	"errors"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier"
)

// delete deletes a manifest or a tag by inner, between an intent and its
// completion. The event is completed at once: the delete has happened, whatever
// the status of the request will be.
func (o *Observer) delete(ctx context.Context, d notifier.Delete, inner func() error) error {
	intent, err := o.intendDelete(ctx, d)
	if err != nil {
		return o.refuseDelete(ctx, d, err)
	}
	resolved := false
	defer func() {
		if !resolved {
			intent.Release() // inner panicked, or failed and may have deleted something
		}
	}()
	err = inner()
	switch {
	case err == nil, IsGone(err) && d.Tag == "":
		// A manifest that does not exist may have records left, of a delete that was
		// interrupted.
		resolved = true
		if failed := o.completeDelete(ctx, intent); failed != nil {
			o.reportUnrecorded(ctx, d, failed)
		}
	case IsGone(err), errors.Is(err, distribution.ErrUnsupported), errors.Is(err, digest.ErrDigestUnsupported), errors.Is(err, digest.ErrDigestInvalidFormat):
		resolved = true
		intent.Abandon()
	}
	return err
}

func (o *Observer) intendDelete(ctx context.Context, d notifier.Delete) (Intent, error) {
	safe, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return o.Recorder.IntendDelete(safe, d)
}

func (o *Observer) completeDelete(ctx context.Context, intent Intent) error {
	safe, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return intent.Complete(safe)
}

// IsGone reports whether storage does not have the manifest or tag.
func IsGone(err error) bool {
	var noTag distribution.ErrTagUnknown
	var noManifest distribution.ErrManifestUnknownRevision
	var noRepository distribution.ErrRepositoryUnknown
	var noPath driver.PathNotFoundError
	return errors.Is(err, distribution.ErrBlobUnknown) || errors.As(err, &noTag) || errors.As(err, &noManifest) ||
		errors.As(err, &noRepository) || errors.As(err, &noPath)
}

// refuseDelete refuses a delete whose intent could not be recorded.
func (o *Observer) refuseDelete(ctx context.Context, d notifier.Delete, err error) error {
	o.Unrecorded("delete")
	o.Log.Error("delete refused: it could not be recorded, and nothing was deleted",
		"repository", d.Repository, "tag", d.Tag, "digest", d.Digest, "request", d.RequestID, "error", err)
	if r := requestOf(ctx); r != nil {
		r.deleteRefused(d, err)
	}
	return errcode.ErrorCodeUnavailable.WithMessage("the delete could not be recorded and nothing was deleted")
}

// reportUnrecorded reports a delete that happened and whose event is not durable.
func (o *Observer) reportUnrecorded(ctx context.Context, d notifier.Delete, err error) {
	o.Unrecorded("delete")
	o.Log.Error("delete not recorded: it happened, and storage is asked again later",
		"repository", d.Repository, "tag", d.Tag, "digest", d.Digest, "request", d.RequestID, "error", err)
	if r := requestOf(ctx); r != nil {
		r.deleteUnrecorded(d, err)
	}
}
