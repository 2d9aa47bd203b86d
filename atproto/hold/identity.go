package hold

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

// Identity is who a hold is.
type Identity struct {
	DID      string
	Handle   string // the hostname, or HandleInvalid for localhost
	Hostname string // "registry.example.com", or "localhost:5000"
	Key      atcrypto.PrivateKeyExportable
	MovedTo  *MovedTo // where the account is now; nil: here
}

// IdentityOf is the identity of a hold at hostname that signs with key.
func IdentityOf(hostname string, key atcrypto.PrivateKeyExportable) (Identity, error) {
	did, err := DIDWeb(hostname)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{DID: did, Handle: hostname, Hostname: hostname, Key: key}
	if isLocalhost(hostname) {
		id.Handle = HandleInvalid
	}
	return id, nil
}

// DIDWeb is the did:web of a hostname: a domain, or localhost with or without
// a port (https://atproto.com/specs/did). The port's colon becomes %3A.
func DIDWeb(hostname string) (string, error) {
	if err := checkHostname(hostname); err != nil {
		return "", fmt.Errorf("hold hostname %q: %w; write a domain like registry.example.com, or localhost:5000 to try things out", hostname, err)
	}
	return "did:web:" + strings.ReplaceAll(hostname, ":", "%3A"), nil
}

func checkHostname(hostname string) error {
	host, port, hasPort := strings.Cut(hostname, ":")
	if isLocalhost(hostname) {
		if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0 || port[0] == '0') {
			return errors.New("its port is not a number from 1 to 65535")
		}
		return nil
	}
	switch {
	case strings.Contains(hostname, "://"):
		return errors.New("it is a URL, leave out the scheme")
	case strings.HasPrefix(hostname, "did:"):
		return errors.New("it is a DID, which is made from the hostname")
	case strings.Contains(hostname, "/"):
		return errors.New("it has a path, which an identity cannot have")
	}
	if isAddress(host) || isAddress(hostname) || strings.HasPrefix(hostname, "[") {
		return errors.New("it is an address, which an identity cannot be")
	}
	if hasPort {
		return errors.New("it has a port, but the network asks a domain on port 443")
	}
	if hostname != strings.ToLower(hostname) {
		return errors.New("it has capital letters")
	}
	if _, err := syntax.ParseHandle(hostname); err != nil {
		return errors.New("it is not a domain")
	}
	return nil
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func isLocalhost(hostname string) bool {
	return hostname == "localhost" || strings.HasPrefix(hostname, "localhost:")
}

// endpoint is where the account's host answers.
func (id Identity) endpoint() string {
	if id.MovedTo != nil {
		return id.MovedTo.Service
	}
	if isLocalhost(id.Hostname) {
		return "http://" + id.Hostname
	}
	return "https://" + id.Hostname
}

// publicKey is what the account's commits are verified with, in multibase.
func (id Identity) publicKey() (string, error) {
	if id.MovedTo != nil && id.MovedTo.Key != "" {
		return id.MovedTo.Key, nil
	}
	public, err := id.Key.PublicKey()
	if err != nil {
		return "", err
	}
	return public.Multibase(), nil
}

// is says whether name, a DID or a handle, means this hold.
func (id Identity) is(name string) bool {
	return name == id.DID || id.Handle != HandleInvalid && strings.EqualFold(name, id.Handle)
}
