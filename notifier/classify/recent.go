package classify

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
)

// recentRequests remembers for a short time the tag under which a client asked for a
// digest, or that a client pushed a digest. The key is a hash with a random seed, so
// neither the client nor the digest can be read from memory.
type recentRequests struct {
	seed   maphash.Seed
	window time.Duration
	now    func() time.Time
	turned time.Time // when the newer generation was started
	byKey  generations.Map[uint64, recentRequest]
}

type recentRequest struct {
	tag string
	at  time.Time
}

// requestKey identifies a client and a digest. The key of a push has the user agent as
// well, since many clients may share an address.
type requestKey struct{ client, agent, repository, digest string }

func newRecentRequests(window time.Duration, limit int, now func() time.Time) recentRequests {
	return recentRequests{
		seed: maphash.MakeSeed(), window: window, now: now, turned: now(),
		byKey: generations.New[uint64, recentRequest](limit),
	}
}

func (r *recentRequests) hash(k requestKey) uint64 { return maphash.Comparable(r.seed, k) }

func (r *recentRequests) empty() bool { return r.byKey.Len() == 0 }

func (r *recentRequests) add(of requestKey, tag string) {
	now := r.now()
	r.expire(now)
	k := r.hash(of)
	if old, ok := r.byKey.Get(k); ok && old.tag == tag {
		tag = old.tag
	} else {
		tag = strings.Clone(tag) // the string of the request may keep a whole URL in memory
	}
	if r.byKey.Put(k, recentRequest{tag, now}, 1) {
		r.turned = now
	}
}

func (r *recentRequests) tag(of requestKey) (string, bool) {
	if r.empty() {
		return "", false
	}
	now := r.now()
	r.expire(now)
	found, ok := r.byKey.Get(r.hash(of))
	if !ok || now.Sub(found.at) > r.window {
		return "", false
	}
	return found.tag, true
}

func (r *recentRequests) remove(of requestKey) {
	if !r.empty() {
		r.byKey.Delete(r.hash(of))
	}
}

// expire drops the generations whose entries are all older than the window.
func (r *recentRequests) expire(now time.Time) {
	age := now.Sub(r.turned)
	if age >= 0 && age <= r.window {
		return
	}
	r.byKey.Turn()
	if age < 0 || age > 2*r.window {
		r.byKey.Turn()
	}
	r.turned = now
}

// host returns an address without its port, since the GET may use another connection than
// the HEAD.
func host(addr string) string {
	if strings.HasPrefix(addr, "[") {
		h, _, _ := strings.Cut(addr[1:], "]")
		return h
	}
	if h, _, ok := strings.Cut(addr, ":"); ok && strings.Count(addr, ":") == 1 {
		return h
	}
	return addr
}
