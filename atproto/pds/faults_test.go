package pds

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// A call that may have been applied is never reported as one that was not, whatever
// becomes of its response, and no call is sent twice.
func TestLostResponses(t *testing.T) {
	t.Parallel()
	const done = Outcome(-1)
	for kind, want := range map[faultproxy.Kind]Outcome{
		faultproxy.Cut:            Unknown,
		faultproxy.Truncate:       Unknown,
		faultproxy.Delay:          done,
		faultproxy.BadGateway:     Unknown,
		faultproxy.HTML:           Unknown,
		faultproxy.Endless:        Unknown,
		faultproxy.RateLimit:      Limited,
		faultproxy.RetryAfter:     Limited,
		faultproxy.RateLimitReset: Limited,
	} {
		for _, delivered := range []bool{false, true} {
			if delivered && !kind.Delivers() {
				continue
			}
			f := faultproxy.Fault{Kind: kind, Delivered: delivered, Method: applyWrites}
			r := newRig(t)
			proxy := r.useProxy()
			if err := r.apply(1); err != nil { // logs in
				t.Fatal(err)
			}
			proxy.Start(f)
			limit := time.Minute
			if kind == faultproxy.Endless {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			_, err := r.Apply(ctx, layers(2), nil, Normal)
			cancel()
			got := done
			if e := (*Error)(nil); errors.As(err, &e) {
				got = e.Outcome
			}
			if got != want || err != nil && want == done {
				t.Errorf("%s: got %v, want outcome %d", f, err, want)
			}
			if hits := proxy.End(); hits != 1 {
				t.Errorf("%s: %d calls, want 1", f, hits)
			}
			applied := len(r.server.writes) == 3
			if applied != (delivered || kind == faultproxy.Delay) {
				t.Errorf("%s: applied %v", f, applied)
			}
		}
	}
}

// useProxy puts a proxy between the account and its server.
func (r *rig) useProxy() *faultproxy.Proxy {
	proxy, err := faultproxy.New(r.server.URL, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	front := httptest.NewServer(proxy)
	r.t.Cleanup(front.Close)
	r.cfg.Service, r.cfg.Identifier = front.URL, alice
	r.cfg.Document = func(context.Context, string) (*identity.Document, error) {
		return &identity.Document{ID: alice, Service: []identity.Service{{
			ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: front.URL,
		}}}, nil
	}
	r.reopen()
	return proxy
}
