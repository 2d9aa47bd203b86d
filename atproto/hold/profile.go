package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// Limits of the profile's schema.
const (
	maxDisplayName = 64        // graphemes
	maxAvatar      = 1_000_000 // bytes
)

// profileTimeout is for the one write that Init makes to an existing repo.
const profileTimeout = 30 * time.Second

// newProfile returns the record that every repo has from its first commit on.
func newProfile(cfg InitConfig) ([]byte, error) {
	name := cfg.DisplayName
	if name == "" {
		name = cfg.Hostname[:min(len(cfg.Hostname), maxDisplayName)] // a domain is ASCII
	}
	record, err := lexicon.Encode(lexicon.Profile{
		DisplayName: name,
		Description: cfg.Description,
		Bot:         true,
		CreatedAt:   lexicon.Datetime(cfg.repo().now()),
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

// updateProfile writes the members that are given and different, and leaves the
// rest of the profile as it is.
func updateProfile(r *repo.Repo, cfg InitConfig) error {
	ctx, cancel := context.WithTimeout(context.Background(), profileTimeout)
	defer cancel()
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
	changed, err := changeProfile(ctx, r, profile, cfg)
	if err != nil || !changed && action == repo.Update {
		return err
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

func changeProfile(ctx context.Context, r *repo.Repo, profile map[string]any, cfg InitConfig) (changed bool, err error) {
	for member, value := range map[string]string{"displayName": cfg.DisplayName, "description": cfg.Description} {
		if value != "" && profile[member] != value {
			profile[member], changed = value, true
		}
	}
	if cfg.Avatar == "" {
		return changed, nil
	}
	avatar, err := uploadAvatar(ctx, r, cfg.Avatar)
	if err != nil {
		return false, err
	}
	if !reflect.DeepEqual(profile["avatar"], avatar) {
		profile["avatar"], changed = avatar, true
	}
	return changed, nil
}

// CheckAvatar returns an error if Init cannot use the picture in a file.
func CheckAvatar(path string) error {
	file, err := openAvatar(path)
	if err != nil {
		return err
	}
	return file.Close()
}

// openAvatar opens a PNG or JPEG file that is not too large.
func openAvatar(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open avatar: %w", err)
	}
	if err := checkAvatar(file); err != nil {
		return nil, errors.Join(fmt.Errorf("avatar %s %w", path, err), file.Close())
	}
	return file, nil
}

func checkAvatar(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxAvatar {
		return fmt.Errorf("has %d bytes; at most %d are allowed", info.Size(), maxAvatar)
	}
	head := make([]byte, 16)
	n, _ := file.ReadAt(head, 0) // a shorter file is not a picture either
	if kind := mediaType(head[:n]); kind != "image/png" && kind != "image/jpeg" {
		return errors.New("is neither PNG nor JPEG")
	}
	return nil
}

// uploadAvatar stores the picture in a file as a blob. The same picture always
// gives the same blob.
func uploadAvatar(ctx context.Context, r *repo.Repo, path string) (map[string]any, error) {
	file, err := openAvatar(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	blob, err := r.Upload(ctx, file, maxAvatar, mediaType)
	if err != nil {
		return nil, fmt.Errorf("avatar %s: %w", path, err)
	}
	return map[string]any{
		"$type":    "blob",
		"ref":      atdata.CIDLink(blob.CID),
		"mimeType": blob.MimeType,
		"size":     blob.Size,
	}, nil
}
