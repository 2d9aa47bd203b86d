package identity

import (
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// Sender returns the DID document of a service at a hostname that only signs its calls. It
// has a key and neither a handle nor a service, since there is no repo.
func Sender(hostname string, key atcrypto.PrivateKey) (Document, error) {
	did, err := DIDWeb(hostname)
	if err != nil {
		return Document{}, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return Document{}, fmt.Errorf("read public key: %w", err)
	}
	return Document{
		Context:            []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"},
		ID:                 did,
		VerificationMethod: []VerificationMethod{{did + "#atproto", "Multikey", did, public.Multibase()}},
		Service:            []Service{},
	}, nil
}
