package hold

import (
	"context"
	"fmt"
	"os"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// maxAvatar is what the profile's schema allows, in bytes.
const maxAvatar = 1_000_000

// uploadAvatar stores the picture in a file, as the blob that a profile names.
// The same file gives the same blob.
func uploadAvatar(ctx context.Context, r *repo.Repo, path string) (map[string]any, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open avatar: %w", err)
	}
	defer file.Close()
	head := make([]byte, 16)
	n, _ := file.ReadAt(head, 0) // too short is not a picture either
	if kind := sniff(head[:n]); kind != "image/png" && kind != "image/jpeg" {
		return nil, fmt.Errorf("avatar %s is neither PNG nor JPEG", path)
	}
	blob, err := r.Upload(ctx, file, maxAvatar, sniff)
	if err != nil {
		return nil, fmt.Errorf("avatar %s, of at most %d bytes: %w", path, maxAvatar, err)
	}
	return map[string]any{
		"$type":    "blob",
		"ref":      atdata.CIDLink(blob.CID),
		"mimeType": blob.MimeType,
		"size":     blob.Size,
	}, nil
}
