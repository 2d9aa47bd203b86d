package repo

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// Rotate changes the key of a stopped repo from old to cfg.Key: #identity,
// for others to resolve the new key, and a fresh commit with its #sync, in one
// transaction. The identity must have the new key already. If that has signed the
// head, as after a crash of the caller, nothing is changed.
func Rotate(cfg Config, old atcrypto.PublicKey) (Head, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return Head{}, fmt.Errorf("rotate key: %w", err)
	}
	head, err := rotate(cfg, old)
	if err != nil {
		return Head{}, fmt.Errorf("rotate the key of the repo in %s: %w", cfg.Dir, err)
	}
	return head, nil
}

func rotate(cfg Config, old atcrypto.PublicKey) (head Head, err error) {
	if !layout.Exists(cfg.FS, cfg.Dir) {
		return Head{}, ErrNotExist
	}
	s, err := layout.Open(cfg.Dir, cfg.Layout())
	if err != nil {
		return Head{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if state, err := loadHead(cfg, s); err == nil {
		return state.Head, nil
	}
	state, err := loadHeadSignedBy(cfg.DID, old, s)
	if err != nil {
		return Head{}, err
	}
	if err := s.Space(); err != nil {
		return Head{}, err
	}
	if _, _, err := tick(state, cfg.Now()); err != nil {
		return Head{}, err
	}
	return Restate(cfg, s, s.NewBatch(), Restatement{State: state, Data: state.Data, Identity: true})
}

// SignedBy reports whether a key signed the head of a stopped repo.
func SignedBy(cfg Config, key atcrypto.PublicKey) (bool, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return false, err
	}
	s, err := layout.OpenReadOnly(cfg.Dir, cfg.Layout())
	if err != nil {
		return false, err
	}
	defer s.Close()
	_, err = loadHeadSignedBy(cfg.DID, key, s)
	if errors.Is(err, ErrKey) {
		return false, nil
	}
	return err == nil, err
}
