package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/internal/private"
)

// CreateKey makes a new signing key (K-256) in a file that only its owner may
// read. It never overwrites one.
func CreateKey(path string) (atcrypto.PrivateKeyExportable, error) {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	err = private.CreateFile(path, []byte(key.Multibase()+"\n"))
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create signing key: %s is there already and is not overwritten", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	return key, nil
}

// LoadKey reads the signing key: one line, the private key in multibase. If the
// file is missing, the error is fs.ErrNotExist and names what makes it.
func LoadKey(path string) (atcrypto.PrivateKeyExportable, error) {
	content, err := private.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load signing key: %w; `tidings hold init` makes one", err)
	}
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	key, err := atcrypto.ParsePrivateMultibase(strings.TrimSpace(string(content)))
	if err != nil {
		// The cause is left out: it may quote the file.
		return nil, fmt.Errorf("load signing key: %s does not hold a private key in multibase", path)
	}
	return key, nil
}
