package identity

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// MovedTo is the host that an account of this hold has moved to.
type MovedTo struct {
	Service string // the new host's URL, https://host
	Key     string // public key that signs there, in multibase; empty: the hold's own
}

func (m *MovedTo) String() string {
	if m.Key == "" {
		return m.Service
	}
	return m.Service + " with the key " + m.Key
}

const (
	validService   = "use a URL such as https://pds.example.com"
	validPublicKey = "use the public key that the new host shows, such as zQ3sh… or did:key:zQ3sh…"
)

// CheckService returns an error unless service is a valid URL in a DID document for the
// new host of the account of hostname: https://host with or without a port, or http://
// for a host on this machine, and not the hold itself.
func CheckService(service, hostname string) error {
	if service == "" {
		return errors.New("required; " + validService)
	}
	u, err := url.Parse(service)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%q is not the URL of a host; %s", service, validService)
	}
	loopback := guard.Loopback(u.Hostname())
	switch {
	case u.User != nil:
		return errors.New("has a user name or a password, which everybody would read")
	case service != u.Scheme+"://"+u.Host:
		return fmt.Errorf("%q has more than a host; %s", service, validService)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%q is neither https nor http; %s", service, validService)
	case u.Scheme == "http" && !loopback:
		return fmt.Errorf("%q is not https; http is only allowed on this machine; %s", service, validService)
	case loopback && !IsLocalhost(hostname):
		return fmt.Errorf("%q is this machine, which clients that resolve %s cannot reach; %s", service, hostname, validService)
	case strings.EqualFold(u.Host, hostname):
		return fmt.Errorf("%q is this hold; remove moved_to while the account is here", service)
	}
	return nil
}

// Multibase returns a public key, given in multibase or as a did:key, in multibase.
func Multibase(key string) string { return strings.TrimPrefix(key, "did:key:") }

// CheckPublicKey returns an error unless key is a public key in multibase or a did:key.
// The error does not contain the key, which may be a private key.
func CheckPublicKey(key string) error {
	if _, err := atcrypto.ParsePublicMultibase(Multibase(key)); err != nil {
		return errors.New("is not a public key; " + validPublicKey)
	}
	return nil
}
