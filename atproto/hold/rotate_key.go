package hold

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// Rotation describes a change of the signing key.
type Rotation struct {
	DID        string
	Old, New   string // public keys, as did:key
	OldKeyFile string // file in which the old private key is kept
	Head       repo.Head
}

// RotateKey replaces the signing key by a new one. No server may have the
// repo open.
//
// Two places have to change: the key file, which did.json is built from, and the
// repo, whose head has to be signed with the new key. There is no
// transaction over both, so the steps have a fixed order, and a crash after any
// of them is repaired by calling RotateKey again:
//
//  1. Create the new key in hold.key.next. After a crash the old key is in use;
//     the next call takes the key that is in this file.
//  2. Keep the old key in hold.key.old-XXXXXXXX. After a crash the old key is
//     still in use; the next call finds the file and leaves it.
//  3. Rename hold.key.next to hold.key. After a crash the head is signed with a
//     key that is kept, and not with the current one: the repo cannot be
//     opened, and OpenRepo reports that a rotation was interrupted. The next
//     call continues with step 4.
//  4. In one transaction of the repo append #identity to the event log and
//     sign a new commit with the new key. Subscribers learn from #identity that
//     they have to fetch the DID document again.
//
// The key file changes before the repo because a relay that sees #identity
// fetches did.json at once and must find the new key.
func RotateKey(cfg RepoConfig) (Rotation, error) {
	done, err := rotateKey(cfg)
	if err != nil {
		return Rotation{}, fmt.Errorf("change signing key: %w", err)
	}
	return done, nil
}

func rotateKey(cfg RepoConfig) (Rotation, error) {
	key, err := identity.LoadKey(cfg.KeyFile)
	if err != nil {
		return Rotation{}, err
	}
	id, err := identity.New(cfg.Hostname, key)
	if err != nil {
		return Rotation{}, err
	}
	r, err := repo.Open(cfg.repoConfig(id))
	if errors.Is(err, repo.ErrKey) {
		return finishRotation(cfg, id, err)
	}
	if err != nil {
		return Rotation{}, err
	}
	if err := errors.Join(r.Health(), r.Close()); err != nil {
		return Rotation{}, err
	}
	old, err := key.PublicKey()
	if err != nil {
		return Rotation{}, err
	}
	if id.Key, err = identity.ReplaceKey(cfg.KeyFile); err != nil {
		return Rotation{}, err
	}
	return rotateRepo(cfg, id, old)
}

// finishRotation does step 4 for a repo whose head is signed with a key
// that was kept. If its key was not kept, cause is returned.
func finishRotation(cfg RepoConfig, id identity.Identity, cause error) (Rotation, error) {
	old, err := identity.OldKeys(cfg.KeyFile)
	if err != nil {
		return Rotation{}, err
	}
	for _, key := range old {
		done, err := rotateRepo(cfg, id, key)
		if !errors.Is(err, repo.ErrKey) {
			return done, err
		}
	}
	return Rotation{}, cause
}

// rotateRepo does step 4.
func rotateRepo(cfg RepoConfig, id identity.Identity, old atcrypto.PublicKey) (Rotation, error) {
	public, err := id.Key.PublicKey()
	if err != nil {
		return Rotation{}, err
	}
	head, err := repo.Rotate(cfg.repoConfig(id), old)
	if err != nil {
		return Rotation{}, err
	}
	return Rotation{DID: id.DID, Old: old.DIDKey(), New: public.DIDKey(), OldKeyFile: identity.OldKeyFile(cfg.KeyFile, old), Head: head}, nil
}

// rotationInterrupted reports whether the head is signed with a kept key, which
// is the state after step 3.
func rotationInterrupted(cfg RepoConfig, id identity.Identity) bool {
	old, err := identity.OldKeys(cfg.KeyFile)
	if err != nil {
		return false
	}
	for _, public := range old {
		if signed, err := repo.SignedBy(cfg.repoConfig(id), public); err == nil && signed {
			return true
		}
	}
	return false
}
