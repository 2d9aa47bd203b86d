// Package inbound ensures that a notification of another registry
// (io.atcr.hold.notifyManifest) is recorded once, even if it is sent repeatedly.
//
// It identifies a notification, finds the event of an earlier one with the same token
// or key, and keeps the response. It writes no events: the notifier does, between
// Log.Begin and Log.End.
package inbound

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

var (
	// ErrTokenUsed: an earlier notification had the same service token.
	ErrTokenUsed = errors.New("service token already used")
	// ErrKeyReused: the issuer has used the Idempotency-Key for another input.
	ErrKeyReused = errors.New("idempotency key already used for another input")

	// ErrBusy: too much is pending for a notification of an unlisted account.
	ErrBusy = errors.New("too many pending notifications")

	errTooMany = fmt.Errorf("more than %d tokens and keys are pending", maxPending)
)

// A Notification reports a manifest that was pushed to another registry, or pulled
// from it. The lexicon package has validated its input.
type Notification struct {
	lexicon.NotifyManifestInput
	Issuer   string // DID of the account that sends it
	Unlisted bool   // the operator has not configured the account; only for pulls
	Token    string // identifies the service token, which is valid for one event
	Key      string // Idempotency-Key of the request, "" if it has none
}

// An ID identifies a notification. Its texts are hashes. It is part of the
// event in the journal.
type ID struct {
	Token string `json:"token"`
	Key   string `json:"key,omitempty"`   // empty: there is none
	Input string `json:"input,omitempty"` // only with a key
	// Unlisted notifications are known for a shorter time.
	Unlisted bool `json:"unlisted,omitempty"`
}

// NewID returns the ID of a notification.
func NewID(n *Notification) (*ID, error) {
	id := &ID{Token: hash("token", n.Issuer, n.Token), Unlisted: n.Unlisted}
	if n.Key == "" {
		return id, nil
	}
	input, err := json.Marshal(n.NotifyManifestInput)
	if err != nil {
		return nil, fmt.Errorf("encode notification: %w", err)
	}
	id.Key, id.Input = hash("key", n.Issuer, n.Key), hash("input", string(input))
	return id, nil
}

// names returns the token and the key: each of them identifies the notification.
func (id *ID) names() []string {
	if id.Key == "" {
		return []string{id.Token}
	}
	return []string{id.Token, id.Key}
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
