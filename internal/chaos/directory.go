package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// A directory is a PLC directory in memory, which outlives a PDS that is stopped. It
// checks no operation. Its DID documents name another PDS than the operations: the proxy
// that clients have to use. The requests are those of did-method-plc 0.3.
type directory struct {
	pds string // URL in the documents

	mu         sync.Mutex
	operations map[string]operation // the last one, by DID
}

func newDirectory(pds string) *directory {
	return &directory{pds: pds, operations: map[string]operation{}}
}

type operation struct {
	Type                string             `json:"type"`
	RotationKeys        []string           `json:"rotationKeys"`
	VerificationMethods map[string]string  `json:"verificationMethods"`
	AlsoKnownAs         []string           `json:"alsoKnownAs"`
	Services            map[string]service `json:"services"`
	Prev                *string            `json:"prev"`
	Sig                 string             `json:"sig,omitempty"`
}

type service struct {
	Type     string `json:"type"`
	Endpoint string `json:"endpoint"`
}

func (d *directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	did, resource, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	op, known := d.operations[did]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost:
		if err := json.NewDecoder(r.Body).Decode(&op); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d.operations[did] = op
	case !known:
		http.Error(w, `{"message":"DID not registered"}`, http.StatusNotFound)
	case resource == "log/last":
		_ = json.NewEncoder(w).Encode(op)
	case resource == "data":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"did": did, "rotationKeys": op.RotationKeys, "verificationMethods": op.VerificationMethods,
			"alsoKnownAs": op.AlsoKnownAs, "services": op.Services,
		})
	default:
		_ = json.NewEncoder(w).Encode(d.document(did, op))
	}
}

func (d *directory) document(did string, op operation) map[string]any {
	methods := []map[string]string{}
	for id, key := range op.VerificationMethods {
		methods = append(methods, map[string]string{
			"id": did + "#" + id, "type": "Multikey", "controller": did,
			"publicKeyMultibase": strings.TrimPrefix(key, "did:key:"),
		})
	}
	services := []map[string]string{}
	for id, s := range op.Services {
		services = append(services, map[string]string{"id": "#" + id, "type": s.Type, "serviceEndpoint": d.pds})
	}
	return map[string]any{
		"@context": []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"},
		"id":       did, "alsoKnownAs": op.AlsoKnownAs, "verificationMethod": methods, "service": services,
	}
}
