package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
)

// verifyRepo fetches the account's repo and has indigo verify it: the
// hash of every block, the whole tree, and the signature with the key of the DID
// document.
func (s *server) verifyRepo() {
	s.t.Helper()
	did, key := s.didDocument()
	res, car, err := s.do("GET", "/xrpc/com.atproto.sync.getRepo?did="+s.did, "", nil)
	if err != nil || res.StatusCode != 200 {
		s.t.Fatalf("getRepo: %v %v", res, err)
	}
	commit, repo, err := indigo.LoadRepoFromCAR(context.Background(), bytes.NewReader(car))
	if err != nil {
		s.t.Fatalf("getRepo: %v", err)
	}
	if err := commit.VerifySignature(key); err != nil {
		s.t.Errorf("signature: %v", err)
	}
	if commit.DID != did || commit.DID != unescaped(s.did) {
		s.t.Errorf("commit of %s, did.json of %s, want %s", commit.DID, did, unescaped(s.did))
	}
	if err := repo.MST.Verify(); err != nil {
		s.t.Errorf("tree: %v", err)
	}
	if root, err := repo.MST.RootCID(); err != nil || !root.Equals(commit.Data) {
		s.t.Errorf("the tree's root is %v (%v), the commit says %s", root, err, commit.Data)
	}
}

// didDocument returns the DID and the key of the DID document.
func (s *server) didDocument() (did string, key atcrypto.PublicKey) {
	s.t.Helper()
	var doc struct {
		ID                 string `json:"id"`
		VerificationMethod []struct {
			PublicKeyMultibase string `json:"publicKeyMultibase"`
		} `json:"verificationMethod"`
	}
	s.json(s.t, "/.well-known/did.json", &doc)
	key, err := atcrypto.ParsePublicMultibase(doc.VerificationMethod[0].PublicKeyMultibase)
	if err != nil {
		s.t.Fatal(err)
	}
	return doc.ID, key
}

// The verifier rejects other keys and corrupted blocks.
func TestVerifierRefuses(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	_, car, err := s.do("GET", "/xrpc/com.atproto.sync.getRepo?did="+s.did, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	commit, _, err := indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	key, err := stranger.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.VerifySignature(key); err == nil {
		t.Error("another key verifies the commit")
	}
	car[len(car)-1] ^= 1
	if _, _, err := indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(car)); err == nil {
		t.Error("a flipped bit is not detected")
	}
}
