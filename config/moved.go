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
	goodService = "write it like https://pds.example.com"
	goodKey     = "give the one that the new host shows, like zQ3sh… or did:key:zQ3sh…, never a private one"
)

// checkService accepts what a DID document shows as the account's host:
// https://host with or without a port, and http:// on this machine.
func (h *Hold) checkService() error {
	text := h.MovedTo.Service
	if text == "" {
		return errors.New("required; " + goodService)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%q is not the address of a host; %s", text, goodService)
	}
	if u.User != nil {
		return errors.New("has a user name or a password in it; everybody would read it")
	}
	if text != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q has more than a host; %s", text, goodService)
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is neither https nor http; %s", text, goodService)
	}
	here := guard.Loopback(u.Hostname())
	if u.Scheme == "http" && !here {
		return fmt.Errorf("%q is not https, which only a host on this machine may be; %s", text, goodService)
	}
	if here && !h.local() {
		return fmt.Errorf("%q is this machine, where nobody who looks up %s reaches it; %s", text, h.Hostname, goodService)
	}
	if strings.EqualFold(u.Host, h.Hostname) {
		return fmt.Errorf("%q is this hold; leave moved_to out while the account is here", text)
	}
	return nil
}

// checkKey leaves out what was written, which may be a private key.
func (m *MovedTo) checkKey() error {
	if m.Key == "" {
		return nil
	}
	if _, err := atcrypto.ParsePublicMultibase(m.PublicKey()); err != nil {
		return errors.New("is not a public key; " + goodKey)
	}
	return nil
}

// PublicKey is Key in multibase, however it was written.
func (m *MovedTo) PublicKey() string { return strings.TrimPrefix(m.Key, "did:key:") }
