package remote

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
)

const (
	owner      = "did:web:registry.example.com"
	repository = "oss/app"
)

// rig is a client of a test server. They share a clock.
type rig struct {
	*testing.T
	*clocktest.Machine
	server *remotetest.Server
	key    atcrypto.PrivateKeyExportable
	cfg    Config
	*Hold
}

func newRig(t *testing.T, cfg remotetest.Config) *rig {
	t.Helper()
	r := &rig{T: t, Machine: clocktest.New()}
	cfg.Now = r.Machine.Now
	r.server = remotetest.New(t, cfg)
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	r.key = key
	r.server.Trust(owner, public)
	r.cfg = Config{Hold: r.server.DID, Tokens: Signed(owner, key, r.Machine.Now), Now: r.Machine.Now, Metrics: NewMetrics()}
	r.restart()
	return r
}

// restart is what a restart of the process does.
func (r *rig) restart() {
	r.Helper()
	hold, err := New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.Hold = hold
}

// push returns a call for a push with so many layers.
func (r *rig) push(layers int) Call {
	return Call{Key: "push 1", Since: r.Machine.Now(), Input: lexicon.NotifyManifestInput{
		Repository: repository, Tag: "v1", UserDID: owner, ManifestDigest: digest("a"), Operation: lexicon.OperationPush,
		Manifest: lexicon.ManifestInfo{
			MediaType: "application/vnd.oci.image.manifest.v1+json",
			Config:    &lexicon.Descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: digest("c"), Size: 7},
			Layers:    layersOf(layers),
		},
	}}
}

func layersOf(n int) []lexicon.Descriptor {
	var layers []lexicon.Descriptor
	for i := range n {
		layers = append(layers, lexicon.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: digest(fmt.Sprint(i)), Size: int64(i)})
	}
	return layers
}

func (r *rig) pull() Call {
	c := r.push(2)
	c.Key, c.Input.Operation = "pull 1", lexicon.OperationPull
	return c
}

// digest returns a digest that ends with a text.
func digest(end string) string { return "sha256:" + strings.Repeat("0", 64-len(end)) + end }

// notify makes a call that has to succeed.
func (r *rig) notify(c Call) lexicon.NotifyManifestOutput {
	r.Helper()
	out, err := r.Notify(r.Context(), c)
	if err != nil || !out.Success {
		r.Fatalf("notify: got %+v, %v", out, err)
	}
	return out
}

// fail makes a call that has to fail, and lets the pause pass.
func (r *rig) fail(c Call) *pds.Error {
	r.Helper()
	_, err := r.Notify(r.Context(), c)
	return r.pass(err)
}

// pass lets the pause of an error pass.
func (r *rig) pass(err error) *pds.Error {
	r.Helper()
	var failed *pds.Error
	if !errors.As(err, &failed) {
		r.Fatalf("got %v, want a *pds.Error", err)
	}
	if failed.Until.After(r.Machine.Now()) {
		r.Pass(failed.Until.Sub(r.Machine.Now()))
	}
	return failed
}

// written asks for a call whose answer was lost.
func (r *rig) written(c Call) Written {
	r.Helper()
	w, err := r.Written(r.Context(), c)
	if err != nil {
		r.Fatalf("written: %v", err)
	}
	return w
}

// deliver does what a sink does: it repeats a call until it is applied, refused or
// uncertain. Fault is called before each attempt; a fault of the server ends with it. It
// returns the last state and how often the call was sent.
func (r *rig) deliver(c Call, fault func(attempt int)) (state string, attempts int) {
	r.Helper()
	send := c
	for range 20 {
		attempts++
		fault(attempts)
		_, err := r.Notify(r.Context(), send)
		r.server.End()
		if err == nil {
			return "answered", attempts
		}
		r.pass(err)
		if errors.As(err, new(*RefusedError)) {
			return "refused", attempts
		}
		if !Lost(err) {
			continue
		}
		w, err := r.Written(r.Context(), c)
		for tries := 0; err != nil && tries < 10; tries++ {
			r.pass(err)
			w, err = r.Written(r.Context(), c)
		}
		if err != nil {
			r.Fatal(err)
		}
		if w.Next != Repeat {
			return w.Next.String(), attempts
		}
		send = w.Call
	}
	return "not delivered", attempts
}

// digests returns the digests of the hold's records, in order.
func (r *rig) digests() string {
	var list []string
	for _, l := range r.server.Layers() {
		list = append(list, l.Digest[len(l.Digest)-1:])
	}
	return strings.Join(list, " ")
}

func (r *rig) counts() remotetest.Counts { return r.server.Counts(owner, repository) }

// wantPause checks that a call fails at once, without a request.
func (r *rig) wantPause(outcome pds.Outcome, atLeast time.Duration) {
	r.Helper()
	before := len(r.server.Calls())
	_, err := r.Notify(r.Context(), r.push(1))
	var failed *pds.Error
	if !errors.As(err, &failed) || failed.Outcome != outcome || failed.Until.Before(r.Machine.Now().Add(atLeast)) {
		r.Errorf("got %v, want a pause of %s, %s", err, atLeast, outcome)
	}
	if after := len(r.server.Calls()); after != before {
		r.Errorf("%d calls in a pause", after-before)
	}
}
