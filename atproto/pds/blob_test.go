package pds

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// takeBlobs answers uploadBlob as the reference PDS does.
func (s *server) takeBlobs(t *testing.T) {
	s.on(UploadBlobMethod, func(w http.ResponseWriter, q *http.Request) {
		token := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		valid := !s.revoked[token] && strings.HasPrefix(token, "access-")
		s.mu.Unlock()
		content, err := io.ReadAll(q.Body)
		switch {
		case !valid:
			refuse(w, 400, "ExpiredToken", "Token has expired")
		case err != nil || q.Method != http.MethodPost || q.ContentLength != int64(len(content)) || q.Header.Get("Content-Type") != "image/png":
			t.Errorf("%s with %d bytes of %d, %s, %v", q.Method, len(content), q.ContentLength, q.Header.Get("Content-Type"), err)
			refuse(w, 400, "InvalidRequest", "bad upload")
		default:
			reply(w, 200, blobAnswer(content, "image/png"))
		}
	})
}

func blobAnswer(content []byte, mimeType string) map[string]any {
	return map[string]any{"blob": map[string]any{
		"$type": "blob", "ref": map[string]string{"$link": blobCID(content).String()}, "mimeType": mimeType, "size": len(content),
	}}
}

func blobCID(content []byte) atdata.CIDLink {
	return atdata.CIDLink(block.Digest(sha256.Sum256(content)).BlobCID())
}

func TestUploadBlob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: minLimit, Day: minLimit}
	r.reopen()
	r.server.takeBlobs(t)
	content := []byte("a picture")
	want := repo.Blob{CID: blobCID(content).CID(), Size: int64(len(content)), MimeType: "image/png"}
	for range 2 * minLimit { // no points are spent
		if got, err := r.UploadBlob(t.Context(), "image/png", content); err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	r.server.revoke("access-")
	if got, err := r.UploadBlob(t.Context(), "image/png", content); err != nil || got != want {
		t.Errorf("with an expired token: got %+v, %v", got, err)
	}
	if err := r.apply(1); err != nil {
		t.Errorf("a write after the uploads: %v", err)
	}
}

// A refused upload says nothing of writes.
func TestUploadBlobRefused(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		answer http.HandlerFunc
		want   Outcome
	}{
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 413, "PayloadTooLarge", "request entity too large")
		}, TooLarge},
		"refused": {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, "InvalidRequest", "no pictures") }, Refused},
		"limited": {func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 429, "RateLimitExceeded", "Rate Limit Exceeded")
		}, Limited},
		"broken":        {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 500, "InternalServerError", "") }, Unknown},
		"another blob":  {func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, blobAnswer([]byte("other"), "image/png")) }, Refused},
		"taken down":    {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 401, "AccountTakedown", "") }, Suspended},
		"not of a PDS":  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, Unknown},
		"without a CID": {func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]any{}) }, Refused},
	}
	for name, tc := range answers {
		r := newRig(t)
		r.server.on(UploadBlobMethod, tc.answer)
		_, err := r.UploadBlob(t.Context(), "image/png", []byte("a picture"))
		var e *Error
		if !errors.As(err, &e) || e.Outcome != tc.want {
			t.Errorf("%s: got %v, want outcome %s", name, err, tc.want)
		}
		if err := r.apply(1); err != nil {
			t.Errorf("%s: a write after it: %v", name, err)
		}
	}
}

func TestUploadBlobLost(t *testing.T) {
	t.Parallel()
	for _, delivered := range []bool{false, true} {
		r := newRig(t)
		r.server.takeBlobs(t)
		proxy := r.useProxy()
		if err := r.apply(1); err != nil { // logs in
			t.Fatal(err)
		}
		proxy.Start(faultproxy.Fault{Kind: faultproxy.Cut, Delivered: delivered, Method: UploadBlobMethod})
		_, err := r.UploadBlob(t.Context(), "image/png", []byte("a picture"))
		if e := (*Error)(nil); !errors.As(err, &e) || e.Outcome != Unknown {
			t.Errorf("delivered %v: got %v, want outcome unknown", delivered, err)
		}
		if hits := proxy.End(); hits != 1 {
			t.Errorf("delivered %v: %d calls, want 1", delivered, hits)
		}
		if want := map[bool]int{true: 1}[delivered]; r.server.called(UploadBlobMethod) != want {
			t.Errorf("delivered %v: the PDS got %d calls, want %d", delivered, r.server.called(UploadBlobMethod), want)
		}
		if _, err := r.UploadBlob(t.Context(), "image/png", []byte("a picture")); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	r := newRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := r.UploadBlob(ctx, "image/png", nil); err == nil {
		t.Error("a canceled upload: got no error")
	}
}

// The PDS names the blob that it does not have, and the error the write that refers to it.
func TestWriteWithoutBlob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	missing, other := blobCID([]byte("missing")), blobCID([]byte("other"))
	writes := layers(4)
	for i, id := range map[int]atdata.CIDLink{1: other, 2: missing, 3: missing} {
		record, err := lexicon.Marshal(map[string]any{"$type": lexicon.NSIDLayer, "picture": map[string]any{
			"$type": "blob", "ref": id, "mimeType": "image/png", "size": int64(1),
		}})
		if err != nil {
			t.Fatal(err)
		}
		writes[i].Record = record
	}
	for message, want := range map[string]int{"Could not find blob: " + missing.String(): 2, "Could not find blob: " + blobCID(nil).String(): -1, "Could not find it": -1} {
		r.server.on(applyWrites, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, "BlobNotFound", message) })
		_, err := r.Apply(t.Context(), writes, nil, Normal)
		got := -1
		if at := (*repo.WriteError)(nil); errors.As(err, &at) {
			got = at.Index
		}
		if got != want || !errors.Is(err, repo.ErrBlobNotFound) {
			t.Errorf("%s: got %v, want write %d and ErrBlobNotFound", message, err, want)
		}
	}
}
