package counter

import (
	"hash/maphash"
	"strings"
	"time"
)

// heads remembers for a short while which tag showed which digest to which
// client. The client is in the key's hash alone, and the seed of that hash is
// in memory alone.
type heads struct {
	seed         maphash.Seed
	window       time.Duration
	half         int
	now          func() time.Time
	turned       time.Time // when newer was begun
	newer, older map[uint64]head
}

type head struct {
	tag string
	at  time.Time
}

type headKey struct{ client, repository, digest string }

func newHeads(window time.Duration, half int, now func() time.Time) heads {
	return heads{seed: maphash.MakeSeed(), window: window, half: half, now: now, turned: now()}
}

func (h *heads) key(q Request) uint64 {
	return maphash.Comparable(h.seed, headKey{host(q.Client), q.Repository, q.Digest})
}

func (h *heads) add(q Request) {
	now := h.now()
	h.turn(now)
	if h.newer == nil {
		h.newer = make(map[uint64]head)
	}
	k := h.key(q)
	tag := q.Tag
	if old, ok := h.newer[k]; ok && old.tag == tag {
		tag = old.tag
	} else {
		tag = strings.Clone(tag) // the request's own string may hold a whole URL
	}
	h.newer[k] = head{tag, now}
}

func (h *heads) tag(q Request) (string, bool) {
	if len(h.newer)+len(h.older) == 0 {
		return "", false
	}
	now := h.now()
	h.turn(now)
	k := h.key(q)
	found, ok := h.newer[k]
	if !ok {
		found, ok = h.older[k]
	}
	if !ok || now.Sub(found.at) > h.window {
		return "", false
	}
	return found.tag, true
}

// turn forgets: what is in the older half when a window has passed is older
// than a window.
func (h *heads) turn(now time.Time) {
	passed := now.Sub(h.turned)
	switch {
	case passed > 2*h.window || passed < 0:
		h.newer, h.older, h.turned = nil, nil, now
	case passed > h.window || len(h.newer) >= h.half:
		h.newer, h.older, h.turned = nil, h.newer, now
	}
}

// host takes the port off an address: the GET may come on another connection
// than the HEAD.
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
