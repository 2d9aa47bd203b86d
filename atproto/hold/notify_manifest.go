package hold

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/opencontainers/go-digest"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Notices takes what other registries tell. Its method is called from many
// goroutines at once.
type Notices interface {
	// Notify records a notice, and returns once that is durable, with what
	// became of it within a few seconds. An *xrpc.Error is answered as it is; after
	// any other the caller is told 503 and may call again.
	Notify(context.Context, Notice) (lexicon.NotifyManifestOutput, error)
}

// A Notice is what another registry tells of a manifest.
type Notice struct {
	lexicon.NotifyManifestInput
	Issuer string // DID of the account that tells
	Token  string // names the token that it came with, which is good for one event
	Key    string // Idempotency-Key of the call, empty if it has none
}

var errNotRecorded = xrpc.NewError(http.StatusServiceUnavailable, "ServiceUnavailable", "this could not be recorded, its operator's log says why; call again, with the same Idempotency-Key, so that it is not done twice")

// notifyManifest is io.atcr.hold.notifyManifest: another registry tells that a
// manifest was pushed to it or pulled from it.
func (s *Server) notifyManifest(c *xrpc.Call) (any, error) {
	in, err := lexicon.ReadNotifyManifest(c.Input)
	if err != nil {
		return nil, xrpc.InvalidRequest("Input/%v", err)
	}
	if err := checkNotice(&in); err != nil {
		return nil, err
	}
	if !c.Caller.(caller).registry && in.UserDID != c.Caller.(caller).did {
		return nil, xrpc.Errorf(http.StatusForbidden, lexicon.ErrorUserMismatch, "%s may tell this hold of images of its own, and userDid is %s", c.Caller.(caller).did, in.UserDID)
	}
	key, err := idempotencyKey(c.Header)
	if err != nil {
		return nil, err
	}
	c.Input = nil // the answer may wait, and this may be large
	out, err := s.notices.Notify(c.Context(), Notice{in, c.Caller.(caller).did, c.Caller.(caller).token, key})
	var refused *xrpc.Error
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	return out, err
}

// Names as the OCI distribution specification has them
// (https://github.com/opencontainers/distribution-spec, "Pulling manifests").
var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// checkNotice refuses what a schema can't.
func checkNotice(in *lexicon.NotifyManifestInput) error {
	switch in.Operation {
	case "", lexicon.OperationPush, lexicon.OperationPull:
	default:
		return xrpc.Errorf(http.StatusBadRequest, lexicon.ErrorInvalidOperation, "operation is %.20q, and this hold knows push and pull", in.Operation)
	}
	if !repositoryName.MatchString(in.Repository) {
		return xrpc.InvalidRequest("Input/not the name of a repository at $.repository")
	}
	if in.Tag != "" && !tagName.MatchString(in.Tag) {
		return xrpc.InvalidRequest("Input/not a tag at $.tag")
	}
	if digest.Digest(in.ManifestDigest).Validate() != nil {
		return xrpc.InvalidRequest("Input/not a digest, like sha256:…, at $.manifestDigest")
	}
	return checkDescriptors(&in.Manifest)
}

// maxSize bounds what a manifest's parts hold together, in bytes: more is no
// number that a reader of JSON has.
const maxSize = 1<<53 - 1

func checkDescriptors(m *lexicon.ManifestInfo) error {
	room := int64(maxSize)
	check := func(path string, d *lexicon.Descriptor) error {
		if digest.Digest(d.Digest).Validate() != nil {
			return xrpc.InvalidRequest("Input/not a digest, like sha256:…, at $.manifest.%s.digest", path)
		}
		if room -= d.Size; room < 0 {
			return xrpc.InvalidRequest("Input/larger than %d bytes together at $.manifest.%s.size", int64(maxSize), path)
		}
		return nil
	}
	if m.Config != nil {
		if err := check("config", m.Config); err != nil {
			return err
		}
	}
	for i := range m.Layers {
		if err := check(fmt.Sprintf("layers[%d]", i), &m.Layers[i]); err != nil {
			return err
		}
	}
	for i := range m.Manifests {
		if err := check(fmt.Sprintf("manifests[%d]", i), &m.Manifests[i]); err != nil {
			return err
		}
	}
	return nil
}

const maxKey = 128 // bytes of an Idempotency-Key

// idempotencyKey is what a caller names the call, so that it may repeat it.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	good := len(values) == 1 && key != "" && len(key) <= maxKey
	for i := range len(key) {
		good = good && key[i] >= ' ' && key[i] <= '~'
	}
	if !good {
		return "", xrpc.InvalidRequest("the header Idempotency-Key takes one value of 1 to %d printable ASCII characters", maxKey)
	}
	return key, nil
}
