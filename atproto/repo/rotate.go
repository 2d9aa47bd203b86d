package repo

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// Rotate gives the repository to another key, cfg.Key, if it is signed by old:
// in one transaction #identity, for others to ask for the new key, and a fresh
// commit with its #sync. The identity has to show the new key already. If that
// signed the head before, nothing is changed. No other process may have the
// repository open.
func Rotate(cfg Config, old atcrypto.PublicKey) (Head, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Head{}, fmt.Errorf("change key: %w", err)
	}
	head, err := rotate(cfg, old)
	if err != nil {
		return Head{}, fmt.Errorf("change the key of the repository in %s: %w", cfg.Dir, err)
	}
	return head, nil
}

func rotate(cfg Config, old atcrypto.PublicKey) (head Head, err error) {
	if !exists(cfg.FS, cfg.Dir) {
		return Head{}, ErrNotExist
	}
	s, err := openStore(cfg, cfg.Dir)
	if err != nil {
		return Head{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if on, err := loadHead(cfg, s); err == nil {
		return on.Head, nil
	}
	on, err := loadHeadOf(cfg.DID, old, s)
	if err != nil {
		return Head{}, err
	}
	if err := s.Space(); err != nil {
		return Head{}, err
	}
	w, err := newWriter(cfg, s, on)
	if err != nil {
		return Head{}, err
	}
	if _, _, err := on.tick(cfg.Now()); err != nil {
		return Head{}, err
	}
	b := s.NewBatch()
	if err := errors.Join(w.addNotice(b, Identity), w.restate(b, on.Data)); err != nil {
		return Head{}, err
	}
	if err := w.finish(b, on.Seq); err != nil {
		return Head{}, err
	}
	return w.next.Head, nil
}

// SignedBy says whether a key signed the head.
func SignedBy(cfg Config, key atcrypto.PublicKey) (bool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return false, err
	}
	s, err := openReadOnly(cfg)
	if err != nil {
		return false, err
	}
	defer s.Close()
	_, err = loadHeadOf(cfg.DID, key, s)
	if errors.Is(err, ErrKey) {
		return false, nil
	}
	return err == nil, err
}

// Writable is why a commit would be refused now whatever is in it: Health, or
// ErrClock. nil if it would not.
func (r *Repo) Writable() error {
	if err := r.Health(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _, err := r.view.tick(r.cfg.Now())
	return err
}
