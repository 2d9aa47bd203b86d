package observe

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

// recordTimeout limits how long a response waits for its event. The journal itself has
// a shorter limit.
const recordTimeout = 30 * time.Second

type requestKey struct{}

// requestOf returns the observed request of a context; nil if the request did not
// pass through Observer.Handler.
func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// request collects the facts of one manifest request until its status decides
// what they mean. The host deletes tags concurrently, hence the lock.
type request struct {
	*http.Request
	observer *Observer

	mu         sync.Mutex
	finished   bool
	requestID  string
	pushes     []*push
	read       bool          // a manifest was read
	pull       notifier.Pull // of that manifest
	unrecorded error         // of deletes that happened and could not be recorded
	refused    error         // of deletes that could not be recorded and did not happen
	forbidden  *refusedPush  // nil: it is permitted
}

// push is one Put of the request. The host calls Put once; an outer middleware may call
// it more often.
type push struct {
	notifier.Push
	intent  Intent
	stored  bool // the inner Put succeeded
	unknown bool // the inner Put has not returned, or failed and may have stored the manifest
	tagged  bool // the inner Tag succeeded, or there is no tag
}

var errAnswered = errors.New("the request has been answered")

// intend records a push before it is stored.
func (r *request) intend(ctx context.Context, p notifier.Push) (*push, error) {
	r.mu.Lock()
	finished := r.finished
	r.requestID = p.RequestID
	r.mu.Unlock()
	if finished {
		return nil, errAnswered
	}
	intent, err := r.observer.Recorder.Intend(ctx, p)
	if err != nil {
		return nil, err
	}
	opened := &push{Push: p, intent: intent, unknown: true, tagged: p.Tag == ""}
	r.mu.Lock()
	r.pushes = append(r.pushes, opened)
	r.mu.Unlock()
	return opened, nil
}

// put stores the result of the inner Put.
func (r *request) put(p *push, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.stored, p.unknown = err == nil, err != nil && !refusedPut(err)
}

// refusedPut reports whether storage validated a manifest and refused it. After any
// other error it is not known whether the manifest was stored.
func refusedPut(err error) bool {
	var verification distribution.ErrManifestVerification
	var unverified distribution.ErrManifestUnverified
	var code errcode.Error
	return errors.As(err, &verification) || errors.As(err, &unverified) || errors.As(err, &code) ||
		errors.Is(err, distribution.ErrUnsupported) || errors.Is(err, distribution.ErrAccessDenied)
}

func (r *request) tagged(tag, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pushes {
		if p.Tag == tag && p.Digest == digest {
			p.tagged = true
		}
	}
}

// pulled stores the result of the inner Get. The first manifest of a request is the
// requested one: the host reads a second one if it answers a client that does not
// accept lists with a child of the list.
func (r *request) pulled(p notifier.Pull) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read {
		r.read, r.pull = true, p
	}
}

// deleteUnrecorded stores that a delete happened and could not be recorded, which
// replaces the response to a success by a 503.
func (r *request) deleteUnrecorded(d notifier.Delete, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requestID = d.RequestID
	r.unrecorded = errors.Join(r.unrecorded, err)
}

// deleteRefused stores that a delete was refused before it reached storage, which
// replaces any response by a 503.
func (r *request) deleteRefused(d notifier.Delete, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requestID = d.RequestID
	r.refused = errors.Join(r.refused, err)
}

// refusePush stores that a push is not permitted, which replaces any response.
func (r *request) refusePush(p *refusedPush) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forbidden = p
}

// answer completes the events of the request, once, according to the status that is
// about to be sent. After an error that status must not be sent, since it would
// acknowledge operations that are not recorded.
func (r *request) answer(status int) error {
	success := status >= 200 && status < 300
	return r.finish(success, status == http.StatusOK)
}

// panicked finishes a request whose handler panicked before it responded. There is no
// status, so the results of storage decide: a push is completed if its manifest and
// tag were stored.
func (r *request) panicked() {
	_ = r.finish(true, false)
}

func (r *request) finish(success, delivered bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return nil
	}
	r.finished = true
	if r.forbidden != nil && len(r.pushes) == 0 {
		return r.forbidden.answer
	}
	if r.read && delivered {
		r.observer.Recorder.Pull(r.pull)
	}
	if len(r.pushes) == 0 {
		if success {
			return errors.Join(r.unrecorded, r.refused)
		}
		return r.refused
	}
	// A stored push is recorded even if the client has disconnected.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordTimeout)
	defer cancel()
	var failed error
	for _, p := range r.pushes {
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
			r.observer.Unrecorded("push")
			r.observer.Log.Error("push not recorded: it was stored, and is answered 503 although the registry's log may show 201",
				"repository", p.Repository, "tag", p.Tag, "digest", p.Digest, "request", p.RequestID, "error", err)
		}
	}
	if !success {
		return r.refused
	}
	return errors.Join(failed, r.unrecorded, r.refused)
}

// actor returns the user who authenticated to the registry. A name that was not
// checked, since no auth is configured, is not an actor.
func actor(ctx context.Context) string {
	name, _ := ctx.Value("auth.user.name").(string)
	return name
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value("http.request.id").(string)
	return id
}

// client returns the address of the client without a port, by the host's rule: a
// proxy's header has priority. Access does not depend on it.
func client(r *http.Request) string {
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	for _, address := range []string{strings.TrimSpace(forwarded), r.Header.Get("X-Real-Ip")} {
		if _, err := netip.ParseAddr(address); err == nil {
			return address
		}
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
