// Package inbound makes sure that what another registry reports with
// io.atcr.hold.notifyManifest is recorded once, however often it is sent.
//
// It identifies a notification, finds the event that an earlier one with the same
// token or key has, and keeps the answer. It writes no events: the notifier does,
// between Log.Begin and Log.End.
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
	// ErrTokenUsed: the service token came with an earlier notification.
	ErrTokenUsed = errors.New("service token was used before")
	// ErrKeyReused: the issuer has used the Idempotency-Key for another input.
	ErrKeyReused = errors.New("idempotency key was used for another input")

	errTooMany = fmt.Errorf("more than %d tokens and keys are pending", maxPending)
)

// A Notification reports a manifest that was pushed to another registry, or pulled
// from it. Its input has been validated by lexicon.
type Notification struct {
	lexicon.NotifyManifestInput
	Issuer string // DID of the account that sends it
	Token  string // identifies the service token, which is valid for one event
	Key    string // Idempotency-Key of the request, "" if it has none
}

// An ID identifies a notification. Its members are hashes. It is part of the
// event in the journal.
type ID struct {
	Token string `json:"token"`
	Key   string `json:"key,omitempty"`   // "": there is none
	Input string `json:"input,omitempty"` // only with a key
}

// NewID returns the ID of a notification.
func NewID(n *Notification) (*ID, error) {
	id := &ID{Token: hash("token", n.Issuer, n.Token)}
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

// names are the token and the key: each of them finds the notification.
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
