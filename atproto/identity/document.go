package identity

import (
	"strings"

	indigo "github.com/bluesky-social/indigo/atproto/identity"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Document is a DID document (https://www.w3.org/TR/did-core) with the members
// that the AT Protocol uses (https://atproto.com/specs/did#did-documents).
type Document struct {
	Context            any                  `json:"@context"` // a list of texts, or in other hosts' documents anything
	ID                 string               `json:"id"`
	AlsoKnownAs        []string             `json:"alsoKnownAs,omitempty"`
	VerificationMethod []VerificationMethod `json:"verificationMethod"`
	Service            []Service            `json:"service"`
}

// VerificationMethod is a public key of a Document.
type VerificationMethod struct {
	ID                 string `json:"id"`
	Type               string `json:"type"`
	Controller         string `json:"controller"`
	PublicKeyMultibase string `json:"publicKeyMultibase"`
}

// Service is a service of a Document.
type Service struct {
	ID              string `json:"id"`
	Type            string `json:"type"`
	ServiceEndpoint string `json:"serviceEndpoint"`
}

// HoldService is the id of the service entry of a hold, which names it as the audience of
// service tokens and in requests that a PDS forwards.
const HoldService = "#atcr_hold"

// holdServiceType is the type of the entry. It says that the service has the methods
// io.atcr.hold.*, as "AtprotoPersonalDataServer" says it of com.atproto.*.
const holdServiceType = "AtcrHoldService"

// Document returns the DID document of a hold. If the account has moved, it
// shows the new host and key. The hold's own service stays at its hostname.
func (id Identity) Document() (Document, error) {
	public, err := id.publicKey()
	if err != nil {
		return Document{}, err
	}
	doc := Document{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"},
		ID:      id.DID,
		VerificationMethod: []VerificationMethod{
			{id.DID + "#atproto", "Multikey", id.DID, public},
		},
		Service: []Service{
			{"#atproto_pds", "AtprotoPersonalDataServer", id.endpoint()}, // first: some clients read only one entry
			{HoldService, holdServiceType, hostURL(id.Hostname)},
		},
	}
	if id.Handle != HandleInvalid {
		doc.AlsoKnownAs = []string{"at://" + id.Handle}
	}
	return doc, nil
}

// SigningKey is the #atproto key in multibase as the document shows it; empty if
// there is none.
func (d *Document) SigningKey() string {
	for _, m := range d.VerificationMethod {
		if m.ID == d.ID+"#atproto" || m.ID == "#atproto" {
			return m.PublicKeyMultibase
		}
	}
	return ""
}

// PublicKey parses the #atproto key, of any type that the specification allows.
// The key must be controlled by the document's own DID.
func (d *Document) PublicKey() (atcrypto.PublicKey, error) {
	doc := indigo.DIDDocument{DID: syntax.DID(d.ID)}
	for _, m := range d.VerificationMethod {
		doc.VerificationMethod = append(doc.VerificationMethod, indigo.DocVerificationMethod(m))
	}
	id := indigo.ParseIdentity(&doc)
	return id.PublicKey()
}

// Host is the URL of the account's host; empty if there is none.
func (d *Document) Host() string {
	for _, v := range d.Service {
		if v.ID == "#atproto_pds" || v.ID == d.ID+"#atproto_pds" {
			return v.ServiceEndpoint
		}
	}
	return ""
}

// Handle is the first handle that the document names; empty if there is none.
func (d *Document) Handle() string {
	for _, alias := range d.AlsoKnownAs {
		handle, found := strings.CutPrefix(alias, "at://")
		if parsed, err := syntax.ParseHandle(handle); found && err == nil {
			return parsed.Normalize().String()
		}
	}
	return ""
}

// HasAudience reports whether aud, the audience of a service token, is the
// document's DID, with or without the fragment of one of its services.
func (d *Document) HasAudience(aud string) bool {
	if aud == d.ID {
		return true
	}
	for _, service := range d.Service {
		if aud == d.ID+service.ID {
			return true
		}
	}
	return false
}
