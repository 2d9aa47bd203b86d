package hold

import (
	"io"
	"net/http"
	"strconv"
)

// didDocument is https://www.w3.org/TR/did-core as the AT Protocol uses it.
type didDocument struct {
	Context            []string             `json:"@context"`
	ID                 string               `json:"id"`
	AlsoKnownAs        []string             `json:"alsoKnownAs,omitempty"`
	VerificationMethod []verificationMethod `json:"verificationMethod"`
	Service            []service            `json:"service"`
}

type verificationMethod struct {
	ID                 string `json:"id"`
	Type               string `json:"type"`
	Controller         string `json:"controller"`
	PublicKeyMultibase string `json:"publicKeyMultibase"`
}

type service struct {
	ID              string `json:"id"`
	Type            string `json:"type"`
	ServiceEndpoint string `json:"serviceEndpoint"`
}

func newDIDDocument(id Identity) (didDocument, error) {
	public, err := id.publicKey()
	if err != nil {
		return didDocument{}, err
	}
	doc := didDocument{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"},
		ID:      id.DID,
		VerificationMethod: []verificationMethod{
			{id.DID + "#atproto", "Multikey", id.DID, public},
		},
		Service: []service{
			{"#atproto_pds", "AtprotoPersonalDataServer", id.endpoint()},
		},
	}
	if id.Handle != HandleInvalid {
		doc.AlsoKnownAs = []string{"at://" + id.Handle}
	}
	return doc, nil
}

// didJSON is /.well-known/did.json.
func (s *Server) didJSON(w http.ResponseWriter, r *http.Request) {
	if onlyGET(w, r) {
		s.reply(w, r, http.StatusOK, s.doc)
	}
}

// atprotoDID is /.well-known/atproto-did, which proves the handle.
func (s *Server) atprotoDID(w http.ResponseWriter, r *http.Request) {
	if !onlyGET(w, r) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(s.id.DID)))
	_, _ = io.WriteString(w, s.id.DID) // the client may be gone
}

// onlyGET answers everything but GET and HEAD, for scripts of any site, too.
func onlyGET(w http.ResponseWriter, r *http.Request) bool {
	allowBrowsers(w.Header())
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodOptions:
		allowAnyCall(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	http.Error(w, "only GET", http.StatusMethodNotAllowed)
	return false
}
