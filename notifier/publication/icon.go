package publication

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // icons may be JPEG
	_ "image/png"  // or PNG
	"io"
	"os"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/tidings-dev/tidings/atproto/block"
)

// Limits of an icon.
const (
	minIconSide = 256       // pixels
	maxIcon     = 1_000_000 // bytes
)

// An Icon is the square picture of a publication.
type Icon struct {
	content   []byte
	mediaType string
}

// ReadIcon reads a PNG or JPEG file and checks that it can be an icon.
func ReadIcon(path string) (*Icon, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read icon: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxIcon+1))
	if err != nil {
		return nil, fmt.Errorf("read icon: %w", err)
	}
	icon, err := NewIcon(content)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return icon, nil
}

// NewIcon checks that a PNG or JPEG file with a content can be an icon. The error continues a
// sentence that begins with the name of the file.
func NewIcon(content []byte) (*Icon, error) {
	if len(content) > maxIcon {
		return nil, fmt.Errorf("has more than %d bytes", maxIcon)
	}
	size, format, err := image.DecodeConfig(bytes.NewReader(content))
	if err != nil {
		return nil, errors.New("is neither PNG nor JPEG")
	}
	if size.Width != size.Height || size.Width < minIconSide {
		return nil, fmt.Errorf("has %d × %d pixels; an icon must be square and have at least %d × %[3]d", size.Width, size.Height, minIconSide)
	}
	return &Icon{content, "image/" + format}, nil
}

// blob is the icon in a record.
func (i *Icon) blob() map[string]any {
	id := block.Digest(sha256.Sum256(i.content)).BlobCID()
	return map[string]any{"$type": "blob", "ref": atdata.CIDLink(id), "mimeType": i.mediaType, "size": int64(len(i.content))}
}
