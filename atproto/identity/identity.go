package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// HandleInvalid is the handle of an account that has none.
const HandleInvalid = "handle.invalid"

// Identity identifies the account of a hold.
type Identity struct {
	DID      string
	Handle   string // the hostname, or HandleInvalid for localhost
	Hostname string // "registry.example.com", or "localhost:5000"
	Key      atcrypto.PrivateKeyExportable
	MovedTo  *MovedTo // the account's current host; nil: this hold
}

// New returns the identity of a hold at hostname that signs with key.
func New(hostname string, key atcrypto.PrivateKeyExportable) (Identity, error) {
	did, err := DIDWeb(hostname)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{DID: did, Handle: hostname, Hostname: hostname, Key: key}
	if id.Local() {
		id.Handle = HandleInvalid
	}
	return id, nil
}

// DIDWeb returns the did:web of a hostname. The port's colon becomes %3A.
func DIDWeb(hostname string) (string, error) {
	if err := CheckHostname(hostname); err != nil {
		return "", fmt.Errorf("hold hostname: %w", err)
	}
	return "did:web:" + strings.ReplaceAll(hostname, ":", "%3A"), nil
}

// ValidateDID returns an error if did is invalid, or neither a did:web nor a
// did:plc, which are the methods that the network supports
// (https://atproto.com/specs/did).
func ValidateDID(did string) error {
	d, err := syntax.ParseDID(did)
	if err != nil {
		return fmt.Errorf(`%q is not a DID; use one like "did:web:example.com" or "did:plc:…"`, did)
	}
	if method := d.Method(); method != "web" && method != "plc" {
		return fmt.Errorf("%q is a DID of an unsupported method; use did:web or did:plc", did)
	}
	return nil
}

// CheckAccount returns an error unless did can be the DID of an account: ValidateDID,
// and the hostname of a did:web must be valid.
func CheckAccount(did string) error {
	if err := ValidateDID(did); err != nil {
		return err
	}
	host, web := strings.CutPrefix(did, "did:web:")
	if web && CheckHostname(strings.ReplaceAll(host, "%3A", ":")) != nil {
		return fmt.Errorf(`%q is not the DID of an account; use one like "did:web:example.com" or "did:plc:…"`, did)
	}
	return nil
}

const validHostname = "use a domain like registry.example.com, or localhost:5000 for testing"

// CheckHostname reports why a hostname has no did:web: it has to be a domain
// without a port, or localhost with or without one (https://atproto.com/specs/did).
func CheckHostname(name string) error {
	invalid := func(problem string) error { return fmt.Errorf("%q %s; %s", name, problem, validHostname) }
	host, port, hasPort := strings.Cut(name, ":")
	switch {
	case name == "":
		return errors.New("required; " + validHostname)
	case strings.HasPrefix(name, "did:"):
		return invalid("is a DID, which is derived from the hostname")
	case strings.Contains(name, "://"):
		return invalid("is a URL; remove the scheme")
	case strings.Contains(name, "/"):
		return invalid("has a path, which an identity cannot have")
	case isAddress(host), isAddress(strings.Trim(name, "[]")), strings.HasPrefix(name, "["):
		return invalid("is an IP address, which an identity cannot be")
	}
	if IsLocalhost(name) {
		if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0 || port[0] == '0') {
			return invalid("has an invalid port")
		}
		return nil
	}
	if hasPort {
		return invalid("has a port, which only localhost may have: a domain is resolved on port 443")
	}
	if name != strings.ToLower(name) {
		return invalid("has capital letters")
	}
	if _, err := syntax.ParseHandle(name); err != nil {
		return invalid("is not a domain")
	}
	return nil
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// IsLocalhost reports whether a hostname is localhost, with or without a port.
func IsLocalhost(hostname string) bool {
	return hostname == "localhost" || strings.HasPrefix(hostname, "localhost:")
}

// Local reports whether the hold is on localhost, where only this machine can
// resolve it.
func (id Identity) Local() bool { return IsLocalhost(id.Hostname) }

// endpoint is the URL of the account's current host.
func (id Identity) endpoint() string {
	if id.MovedTo != nil {
		return id.MovedTo.Service
	}
	return hostURL(id.Hostname)
}

func hostURL(hostname string) string {
	if IsLocalhost(hostname) {
		return "http://" + hostname
	}
	return "https://" + hostname
}

// publicKey is the key that the account's commits are verified with, in
// multibase.
func (id Identity) publicKey() (string, error) {
	if id.MovedTo != nil && id.MovedTo.Key != "" {
		return id.MovedTo.Key, nil
	}
	public, err := id.Key.PublicKey()
	if err != nil {
		return "", fmt.Errorf("read public key: %w", err)
	}
	return public.Multibase(), nil
}

// Matches reports whether name, a DID or a handle, identifies this account.
func (id Identity) Matches(name string) bool {
	return name == id.DID || id.Handle != HandleInvalid && strings.EqualFold(name, id.Handle)
}
