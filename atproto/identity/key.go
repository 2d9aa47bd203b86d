package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/internal/private"
)

// CreateKey creates a signing key (K-256) in a file that only its owner may
// read. It never overwrites a file.
func CreateKey(path string) (atcrypto.PrivateKeyExportable, error) {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	err = private.CreateFile(path, []byte(key.Multibase()+"\n"))
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create signing key: %s exists already and is not overwritten", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	return key, nil
}

// LoadKey reads a signing key: one line with the private key in multibase. If the
// file does not exist, the error wraps fs.ErrNotExist and names the command that
// creates it.
func LoadKey(path string) (atcrypto.PrivateKeyExportable, error) {
	content, err := private.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load signing key: %w; create it with `tidings hold init`", err)
	}
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	key, err := atcrypto.ParsePrivateMultibase(strings.TrimSpace(string(content)))
	if err != nil {
		// The cause is left out: it may quote the file.
		return nil, fmt.Errorf("load signing key: %s does not contain a private key in multibase", path)
	}
	return key, nil
}

// ReplaceKey replaces the key in a file by a new one and returns the new key. The
// old key is kept in the file OldKeyFile.
//
// The steps are: create the new key in path.next; keep the old key; rename
// path.next to path. After a crash before the rename the old key is still in
// place, and a second call continues with the path.next that is there.
func ReplaceKey(path string) (atcrypto.PrivateKeyExportable, error) {
	old, err := LoadKey(path)
	if err != nil {
		return nil, err
	}
	public, err := old.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	next := path + ".next"
	key, err := LoadKey(next)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = CreateKey(next)
	}
	if err != nil {
		return nil, err
	}
	err = private.CreateFile(OldKeyFile(path, public), []byte(old.Multibase()+"\n"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the old signing key: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return nil, err
	}
	return key, private.SyncDir(filepath.Dir(path))
}

const oldKeySuffix = ".old-"

// OldKeyFile is the file in which ReplaceKey keeps an old key of the key file
// path. Its name ends with the last characters of the public key.
func OldKeyFile(path string, public atcrypto.PublicKey) string {
	name := public.Multibase()
	return path + oldKeySuffix + name[len(name)-8:]
}

// KeyFiles returns the paths of the key file path and of the old keys next to it, as far as
// they exist.
func KeyFiles(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path))
		if ok && (rest == "" || strings.HasPrefix(rest, oldKeySuffix)) {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return files, nil
}

// OldKeys returns the public keys of the keys that ReplaceKey has replaced in
// path, ordered by the names of their files.
func OldKeys(path string) ([]atcrypto.PublicKey, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var old []atcrypto.PublicKey
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)+oldKeySuffix) {
			continue
		}
		file := filepath.Join(filepath.Dir(path), e.Name())
		key, err := LoadKey(file)
		if err != nil {
			return nil, err
		}
		public, err := key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("read public key of %s: %w", file, err)
		}
		old = append(old, public)
	}
	return old, nil
}
