package hold

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// profileTimeout bounds the one write that an Init may make to a repository.
const profileTimeout = 30 * time.Second

// maxDisplayName is what the profile's schema allows, in graphemes.
const maxDisplayName = 64

// newProfile is the record that stands in every hold from its first commit on.
func newProfile(cfg InitConfig) ([]byte, error) {
	name := cfg.DisplayName
	if name == "" {
		name = cfg.Hostname[:min(len(cfg.Hostname), maxDisplayName)] // a domain is ASCII
	}
	record, err := lexicon.Encode(lexicon.Profile{
		DisplayName: name,
		Description: cfg.Description,
		Bot:         true,
		CreatedAt:   cfg.repo().now().UTC().Format("2006-01-02T15:04:05.000Z"),
	})
	if err != nil {
		return nil, err
	}
	return record, checkProfile(record)
}

func checkProfile(record []byte) error {
	if _, err := lexicon.Validate(lexicon.NSIDProfile, record); err != nil {
		return fmt.Errorf("display name or description: %w", err)
	}
	return nil
}

// updateProfile writes the names that are given and differ, and leaves the
// rest of the profile as it is.
func updateProfile(r *repo.Repo, cfg InitConfig) error {
	action := repo.Update
	_, old, err := r.Get(lexicon.NSIDProfile, "self")
	switch {
	case errors.Is(err, repo.ErrNotFound):
		action = repo.Create
		if old, err = newProfile(cfg); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read profile: %w", err)
	}
	profile, err := lexicon.Unmarshal(old)
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), profileTimeout)
	defer cancel()
	changed := action == repo.Create
	for member, value := range map[string]string{"displayName": cfg.DisplayName, "description": cfg.Description} {
		if value != "" && profile[member] != value {
			profile[member], changed = value, true
		}
	}
	if cfg.Avatar != "" {
		avatar, err := uploadAvatar(ctx, r, cfg.Avatar)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(profile["avatar"], avatar) {
			profile["avatar"], changed = avatar, true
		}
	}
	if !changed {
		return nil
	}
	record, err := lexicon.Marshal(profile)
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	if err := checkProfile(record); err != nil {
		return err
	}
	_, err = r.Apply(ctx, []repo.Write{{Action: action, Collection: lexicon.NSIDProfile, RKey: "self", Record: record}}, nil)
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	return nil
}
