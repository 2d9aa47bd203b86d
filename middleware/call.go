package middleware

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/tidings-dev/tidings/notifier"
)

// recordTimeout bounds how long an answer waits for its event. The journal
// gives up sooner by itself; this is for a recorder that does not.
const recordTimeout = 30 * time.Second

type callKey struct{}

// callOf finds the call that Wrap put into a request's context; nil when the
// request did not come through Wrap.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// call collects what is known about one manifest request until its status
// settles what of it was true. The host untags concurrently, hence the lock.
type call struct {
	handler *Handler
	request *http.Request

	mu        sync.Mutex
	settled   bool
	requestID string
	pushes    []*push
	got       bool          // a manifest,
	pull      notifier.Pull // this one
	unsaid    error         // a delete that happened and could not be recorded
	refused   error         // a delete that could not be noted and did not happen
}

// push is one Put of the request. The host makes one; a middleware outside of
// ours may make more.
type push struct {
	notifier.Push
	intent  Intent
	stored  bool // the inner Put returned nil
	unknown bool // the inner Put has not returned, or failed after it may have stored the manifest
	tagged  bool // the inner Tag returned nil, or there is no tag
}

var errAnswered = errors.New("the request is answered already")

// intend opens a push before it is stored.
func (c *call) intend(ctx context.Context, p notifier.Push) (*push, error) {
	c.mu.Lock()
	settled := c.settled
	c.requestID = p.RequestID
	c.mu.Unlock()
	if settled {
		return nil, errAnswered
	}
	intent, err := c.handler.recorder.Intend(ctx, p)
	if err != nil {
		return nil, err
	}
	opened := &push{Push: p, intent: intent, unknown: true, tagged: p.Tag == ""}
	c.mu.Lock()
	c.pushes = append(c.pushes, opened)
	c.mu.Unlock()
	return opened, nil
}

// put notes how the inner Put ended.
func (c *call) put(p *push, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.stored, p.unknown = err == nil, err != nil && !refusedPut(err)
}

// refusedPut reports whether storage has looked at a manifest and refused it. Of
// any other error it is not known what storage did before.
func refusedPut(err error) bool {
	var verification distribution.ErrManifestVerification
	var unverified distribution.ErrManifestUnverified
	var code errcode.Error
	return errors.As(err, &verification) || errors.As(err, &unverified) || errors.As(err, &code) ||
		errors.Is(err, distribution.ErrUnsupported) || errors.Is(err, distribution.ErrAccessDenied)
}

func (c *call) tagged(tag, digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pushes {
		if p.Tag == tag && p.Digest == digest {
			p.tagged = true
		}
	}
}

// pulled notes what a Get returned. The first one of a request is what was
// asked for: the host gets a second manifest when it answers an old client
// with a child of the list.
func (c *call) pulled(p notifier.Pull) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.got {
		c.got, c.pull = true, p
	}
}

// unrecorded notes a delete that happened and could not be recorded. It turns
// a success into a 503.
func (c *call) unrecorded(d notifier.Delete, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requestID = d.RequestID
	c.unsaid = errors.Join(c.unsaid, err)
}

// undeletable notes that a delete was refused before it reached storage. It turns
// the answer into a 503.
func (c *call) undeletable(d notifier.Delete, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requestID = d.RequestID
	c.refused = errors.Join(c.refused, err)
}

// settle completes the request's event, once, by the status that is about to
// go out. An error means that the status must not: it would acknowledge what
// is not recorded.
func (c *call) settle(status int) error {
	success := status >= 200 && status < 300
	return c.finish(success, status == http.StatusOK)
}

// crash settles a request whose handler panicked before it answered. As after
// a crash of the process there is no status to go by, so what is stored
// decides.
func (c *call) crash() {
	_ = c.finish(true, false)
}

func (c *call) finish(success, delivered bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return nil
	}
	c.settled = true
	if c.got && delivered {
		c.handler.recorder.Pull(c.pull)
	}
	if len(c.pushes) == 0 {
		if success {
			return errors.Join(c.unsaid, c.refused)
		}
		return c.refused
	}
	// The client may leave as soon as its push is stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.request.Context()), recordTimeout)
	defer cancel()
	var failed error
	for _, p := range c.pushes {
		if !p.stored && !p.unknown {
			p.intent.Abandon()
			continue
		}
		if !success || !p.stored || !p.tagged {
			p.intent.Release()
			continue
		}
		if err := p.intent.Complete(ctx); err != nil {
			failed = errors.Join(failed, err)
			c.handler.metrics.unrecorded("push")
			c.handler.log.Error("a push was stored but could not be recorded; the client is told 503, though the registry's log may say 201",
				"repository", p.Repository, "tag", p.Tag, "digest", p.Digest, "request", p.RequestID, "err", err)
		}
	}
	if !success {
		return c.refused
	}
	return errors.Join(failed, c.unsaid, c.refused)
}

// actor is who authenticated to the registry. A name that nobody checked (no
// auth is configured, yet the client sends one) is no actor.
func actor(ctx context.Context) string {
	name, _ := ctx.Value("auth.user.name").(string)
	return name
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value("http.request.id").(string)
	return id
}

// client is the address the request came from, without the port, by the
// host's rule: a proxy's header wins. Nothing is allowed or refused by it.
func client(r *http.Request) string {
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	for _, said := range []string{strings.TrimSpace(forwarded), r.Header.Get("X-Real-Ip")} {
		if _, err := netip.ParseAddr(said); err == nil {
			return said
		}
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
