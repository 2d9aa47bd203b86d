package notifier

import (
	"context"
	"errors"
)

// maxSized is of how many images an index's size is made. One that lists more has
// none.
const maxSized = 64

// sizeOfIndex is how much the images of an index hold together, 0 if that is not
// known: an index says only how large its manifests are.
func (n *Notifier) sizeOfIndex(ctx context.Context, e *Event) (int64, error) {
	if len(e.Manifest.Manifests) > maxSized {
		return 0, nil
	}
	var sum int64
	for _, m := range e.Manifest.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue
		}
		mediaType, payload, err := n.Storage.Manifest(ctx, e.Repository, m.Digest)
		if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		image, err := readManifest(mediaType, payload)
		if err != nil {
			return 0, nil
		}
		sum += sizeOf(&image)
	}
	return sum, nil
}
