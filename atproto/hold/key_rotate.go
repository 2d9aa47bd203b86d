package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/private"
)

// Rotation is a change of the signing key.
type Rotation struct {
	DID      string
	Old, New string // public keys, as did:key
	Aside    string // where the old private key is kept
	Head     repo.Head
}

// RotateKey makes a new signing key and lets the account go on with it. No
// server may have the repository open. did.json is made from the key file, so
// that comes first: the new key takes the old one's place, which is kept beside
// it, and then the repository gets #identity and a fresh commit in one
// transaction. Cut short anywhere, it is finished by calling it again; between
// the two steps the repository can't be opened.
func RotateKey(cfg RepoConfig) (Rotation, error) {
	done, err := rotateKey(cfg)
	if err != nil {
		return Rotation{}, fmt.Errorf("change signing key: %w", err)
	}
	return done, nil
}

func rotateKey(cfg RepoConfig) (Rotation, error) {
	key, err := LoadKey(cfg.KeyFile)
	if err != nil {
		return Rotation{}, err
	}
	id, err := IdentityOf(cfg.Hostname, key)
	if err != nil {
		return Rotation{}, err
	}
	r, err := repo.Open(repoConfig(cfg, id))
	if errors.Is(err, repo.ErrKey) {
		return finishRotation(cfg, id, err)
	}
	if err != nil {
		return Rotation{}, err
	}
	if err := errors.Join(r.Writable(), r.Close()); err != nil {
		return Rotation{}, err
	}
	old, err := key.PublicKey()
	if err != nil {
		return Rotation{}, err
	}
	if id.Key, err = replaceKey(cfg.KeyFile, key, old); err != nil {
		return Rotation{}, err
	}
	return handOver(cfg, id, old)
}

// replaceKey puts a new key in the place of the old one. A new one that an
// earlier attempt made is taken.
func replaceKey(path string, old atcrypto.PrivateKeyExportable, public atcrypto.PublicKey) (atcrypto.PrivateKeyExportable, error) {
	next := path + ".next"
	key, err := LoadKey(next)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = CreateKey(next)
	}
	if err != nil {
		return nil, err
	}
	err = private.CreateFile(asideKey(path, public), []byte(old.Multibase()+"\n"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the old key: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return nil, err
	}
	return key, private.SyncDir(filepath.Dir(path))
}

// asideKey is where an old key is kept: the end of the public key tells which.
func asideKey(path string, public atcrypto.PublicKey) string {
	name := public.Multibase()
	return path + ".old-" + name[len(name)-8:]
}

// finishRotation is for a repository whose head is signed by a key that was
// kept aside; if it is by another, why stands.
func finishRotation(cfg RepoConfig, id Identity, why error) (Rotation, error) {
	old, err := OldKeys(cfg.KeyFile)
	if err != nil {
		return Rotation{}, err
	}
	for _, key := range old {
		done, err := handOver(cfg, id, key)
		if !errors.Is(err, repo.ErrKey) {
			return done, err
		}
	}
	return Rotation{}, why
}

func handOver(cfg RepoConfig, id Identity, old atcrypto.PublicKey) (Rotation, error) {
	public, err := id.Key.PublicKey()
	if err != nil {
		return Rotation{}, err
	}
	head, err := repo.Rotate(repoConfig(cfg, id), old)
	if err != nil {
		return Rotation{}, err
	}
	return Rotation{DID: id.DID, Old: old.DIDKey(), New: public.DIDKey(), Aside: asideKey(cfg.KeyFile, old), Head: head}, nil
}

// OldKeys are the public keys that the account had before, from the private
// ones that RotateKey kept beside keyFile.
func OldKeys(keyFile string) ([]atcrypto.PublicKey, error) {
	entries, err := os.ReadDir(filepath.Dir(keyFile)) // in the order of their names
	if err != nil {
		return nil, err
	}
	var old []atcrypto.PublicKey
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(keyFile)+".old-") {
			continue
		}
		file := filepath.Join(filepath.Dir(keyFile), e.Name())
		key, err := LoadKey(file)
		if err != nil {
			return nil, err
		}
		public, err := key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		old = append(old, public)
	}
	return old, nil
}

// rotating says whether an old key is kept that signed what the current one
// did not.
func rotating(cfg RepoConfig, id Identity) bool {
	old, err := OldKeys(cfg.KeyFile)
	if err != nil {
		return false
	}
	for _, public := range old {
		if signed, err := repo.SignedBy(repoConfig(cfg, id), public); err == nil && signed {
			return true
		}
	}
	return false
}

// Offline is what atproto/repo needs to look at a hold's repository while no
// server has it open, with the keys that the account had before.
func Offline(cfg RepoConfig) (repo.Config, []atcrypto.PublicKey, error) {
	key, err := LoadKey(cfg.KeyFile)
	if errors.Is(err, fs.ErrNotExist) && repo.Exists(cfg.Dir) {
		return repo.Config{}, nil, missingKey(cfg)
	}
	if err != nil {
		return repo.Config{}, nil, err
	}
	id, err := IdentityOf(cfg.Hostname, key)
	if err != nil {
		return repo.Config{}, nil, err
	}
	old, err := OldKeys(cfg.KeyFile)
	return repoConfig(cfg, id), old, err
}
