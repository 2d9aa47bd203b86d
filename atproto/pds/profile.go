package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Labels that an account gives itself, in its profile.
const (
	selfLabels = "com.atproto.label.defs#selfLabels"
	botLabel   = "bot"
)

const (
	profileKey = "self" // of all records in this file
	hideMember = "hideFromAlgorithmicRecommendations"
)

// Profile is what an account declares about itself for the apps and feeds of
// Bluesky.
type Profile struct {
	Bot  bool // its profile has the self-label "bot": the account is automated
	Hide bool // feeds that an algorithm composes should not recommend its posts
}

// Profile reads the declarations.
func (a *Account) Profile(ctx context.Context) (Profile, error) {
	profile, _, err := a.readFields(ctx, lexicon.NSIDProfile, profileKey)
	if err != nil {
		return Profile{}, err
	}
	_, labels, err := readLabels(profile)
	if err != nil {
		return Profile{}, fmt.Errorf("%s/%s: %w", lexicon.NSIDProfile, profileKey, err)
	}
	visibility, _, err := a.readFields(ctx, lexicon.NSIDContentVisibility, profileKey)
	if err != nil {
		return Profile{}, err
	}
	return Profile{Bot: slices.ContainsFunc(labels, isBotLabel), Hide: string(visibility[hideMember]) == "true"}, nil
}

// SetBot adds the self-label "bot" to the profile or removes it, and reports
// whether it wrote anything. All other members and labels stay as they are; a
// profile that does not exist is created.
func (a *Account) SetBot(ctx context.Context, bot bool) (changed bool, err error) {
	return a.edit(ctx, lexicon.NSIDProfile, profileKey, func(profile fields) (bool, error) {
		labels, values, err := readLabels(profile)
		if err != nil || slices.ContainsFunc(values, isBotLabel) == bot {
			return false, err
		}
		if values = slices.DeleteFunc(values, isBotLabel); bot {
			values = append(values, json.RawMessage(`{"val":"`+botLabel+`"}`))
		}
		if len(profile) == 0 {
			profile.set("$type", lexicon.NSIDProfile)
			profile.set("createdAt", lexicon.Datetime(a.now()))
		}
		labels.set("values", values)
		profile.set("labels", labels)
		return true, nil
	})
}

// SetHide asks the feeds that an algorithm composes to leave out the account's
// posts, or withdraws that, and reports whether it wrote anything. The source is
// the lexicon app.bsky.actor.contentVisibilityDeclaration; a missing record means
// false.
func (a *Account) SetHide(ctx context.Context, hide bool) (changed bool, err error) {
	return a.edit(ctx, lexicon.NSIDContentVisibility, profileKey, func(record fields) (bool, error) {
		if (string(record[hideMember]) == "true") == hide {
			return false, nil
		}
		record.set("$type", lexicon.NSIDContentVisibility)
		record.set(hideMember, hide)
		return true, nil
	})
}

// readLabels returns the self-labels of a profile and the values in them, each an
// object with a val.
func readLabels(profile fields) (labels fields, values []json.RawMessage, err error) {
	if !profile.has("labels") {
		labels = fields{}
		labels.set("$type", selfLabels)
		return labels, nil, nil
	}
	if labels, err = object(profile["labels"]); err != nil {
		return nil, nil, fmt.Errorf("labels: %w", err)
	}
	if kind := labels.text("$type"); kind != selfLabels {
		return nil, nil, fmt.Errorf("labels have the type %q, not %s: set the label in an app", guard.Printable(kind, 100), selfLabels)
	}
	if err := json.Unmarshal(labels["values"], &values); err != nil {
		return nil, nil, errors.New("labels have no list of values: set the label in an app")
	}
	return labels, values, nil
}

func isBotLabel(label json.RawMessage) bool {
	l, err := object(label)
	return err == nil && l.text("val") == botLabel
}
