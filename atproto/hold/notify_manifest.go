package hold

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/opencontainers/go-digest"
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Notifier records the notifications of other registries. It is safe for
// concurrent use.
type Notifier interface {
	// Notify records a notification. When it returns the event is durable; the
	// output has the results of sinks within a few seconds. An *xrpc.Error is sent to
	// the caller; any other error becomes a 503, after which the caller may repeat
	// the request.
	Notify(context.Context, Notification) (lexicon.NotifyManifestOutput, error)
}

// Notification is the notification of another registry about a manifest.
type Notification struct {
	lexicon.NotifyManifestInput
	Issuer   string // DID of the caller
	Unlisted bool   // the caller is not configured; only for pulls
	Token    string // ID of the service token, which is valid for one event
	Key      string // Idempotency-Key of the call; may be empty
}

var errNotRecorded = xrpc.Unavailable("the event could not be recorded, the operator's log has the reason; repeat the call with the same Idempotency-Key, so that it is not recorded twice")

// maxUnlistedInput limits the body of a caller that is not configured, in bytes. A manifest
// with a thousand layers fits in.
const maxUnlistedInput = 256 << 10

// mayNotify is the access to notifyManifest. Who may report what depends on the body.
func (s *Server) mayNotify(c *xrpc.Call) error {
	if err := s.callers.Authorize(c); err != nil {
		return err
	}
	if c.Caller.(auth.Caller).Unlisted {
		c.InputLimit = maxUnlistedInput
	}
	return nil
}

// notifyManifest is io.atcr.hold.notifyManifest: another registry reports that a
// manifest was pushed to it or pulled from it.
func (s *Server) notifyManifest(c *xrpc.Call) (any, error) {
	out, err := s.notify(c)
	s.network.metrics.callers.Called(err)
	return out, err
}

func (s *Server) notify(c *xrpc.Call) (out lexicon.NotifyManifestOutput, err error) {
	in := lexicon.ReadNotifyManifest(c.Input)
	if err := checkNotification(&in); err != nil {
		return out, err
	}
	caller := c.Caller.(auth.Caller)
	if err := checkReporter(caller, &in); err != nil {
		return out, err
	}
	key, err := idempotencyKey(c.Header)
	if err != nil {
		return out, err
	}
	c.Input = nil // it may be large, and Notify may wait
	out, err = s.notifier.Notify(c.Context(), Notification{in, caller.DID, caller.Unlisted, caller.Token, key})
	var refused *xrpc.Error
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	return out, err
}

// checkReporter checks that a caller may report an image. The token of a pull is the
// puller's, and userDid names the owner of the image, so only a push can be compared with
// its owner.
func checkReporter(caller auth.Caller, in *lexicon.NotifyManifestInput) error {
	switch {
	case in.Operation == lexicon.OperationPull || caller.Registry:
		return nil
	case caller.Unlisted:
		return auth.ErrUnlisted(caller.DID)
	case in.UserDID != caller.DID:
		return xrpc.Errorf(http.StatusForbidden, lexicon.ErrorUserMismatch, "%s may report pushes of its own images only, but userDid is %s", caller.DID, in.UserDID)
	}
	return nil
}

// Names by the OCI distribution specification
// (https://github.com/opencontainers/distribution-spec, "Pulling manifests").
var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// checkNotification checks requirements that a schema cannot express. Invalid parts of
// the manifest are no errors: the notifier leaves them out.
func checkNotification(in *lexicon.NotifyManifestInput) error {
	switch in.Operation {
	case "", lexicon.OperationPush, lexicon.OperationPull:
	default:
		return xrpc.Errorf(http.StatusBadRequest, lexicon.ErrorInvalidOperation, "invalid operation %.20q: use push or pull", in.Operation)
	}
	if !repositoryName.MatchString(in.Repository) {
		return xrpc.InvalidRequest("Input/invalid repository name at $.repository")
	}
	if in.Tag != "" && !tagName.MatchString(in.Tag) {
		return xrpc.InvalidRequest("Input/invalid tag at $.tag")
	}
	if digest.Digest(in.ManifestDigest).Validate() != nil {
		return xrpc.InvalidRequest("Input/invalid digest at $.manifestDigest")
	}
	return nil
}

const (
	keyHeader = "Idempotency-Key"
	maxKey    = 128 // bytes of a key
)

// repeatKey repeats the key of an authorized call in the answer, also if that is an error,
// so that a caller can learn that this hold honors keys: the published schema does not
// mention them.
func repeatKey(access func(*xrpc.Call) error) func(*xrpc.Call) error {
	return func(c *xrpc.Call) error {
		if err := access(c); err != nil {
			return err
		}
		if key, err := idempotencyKey(c.Header); err == nil && key != "" {
			c.Response.Set(keyHeader, key)
		}
		return nil
	}
}

// idempotencyKey returns the key with which a caller can repeat a call; empty if
// it gives none.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values(keyHeader)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	valid := len(values) == 1 && key != "" && len(key) <= maxKey
	for i := range len(key) {
		valid = valid && key[i] >= ' ' && key[i] <= '~'
	}
	if !valid {
		return "", xrpc.InvalidRequest("invalid Idempotency-Key: it has to be one value of 1 to %d printable ASCII characters", maxKey)
	}
	return key, nil
}
