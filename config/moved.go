package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	goodService = "use a URL such as https://pds.example.com"
	goodKey     = "use the public key that the new host shows, such as zQ3sh… or did:key:zQ3sh…"
)

// checkService accepts the URLs that a DID document may have for the account's host:
// https://host with or without a port, and http:// on this machine.
func (h *Hold) checkService() error {
	text := h.MovedTo.Service
	if text == "" {
		return errors.New("required; " + goodService)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%q is not the URL of a host; %s", text, goodService)
	}
	if u.User != nil {
		return errors.New("has a user name or a password, which everybody would read")
	}
	if text != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q has more than a host; %s", text, goodService)
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is neither https nor http; %s", text, goodService)
	}
	here := guard.Loopback(u.Hostname())
	if u.Scheme == "http" && !here {
		return fmt.Errorf("%q is not https; http is only allowed on this machine; %s", text, goodService)
	}
	if here && !h.local() {
		return fmt.Errorf("%q is this machine, which clients that resolve %s cannot reach; %s", text, h.Hostname, goodService)
	}
	if strings.EqualFold(u.Host, h.Hostname) {
		return fmt.Errorf("%q is this hold; remove moved_to while the account is here", text)
	}
	return nil
}

// checkKey returns an error without the value, which may be a private key.
func (m *MovedTo) checkKey() error {
	if m.Key == "" {
		return nil
	}
	if _, err := atcrypto.ParsePublicMultibase(m.PublicKey()); err != nil {
		return errors.New("is not a public key; " + goodKey)
	}
	return nil
}

// PublicKey returns Key in multibase.
func (m *MovedTo) PublicKey() string { return strings.TrimPrefix(m.Key, "did:key:") }
