package counter

import (
	"hash/maphash"
	"strings"
	"time"
)

// heads remembers for a short while which tag showed which digest to which
// client, or which client pushed which digest. The client is in the key's hash
// alone, and the seed of that hash is in memory alone.
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

// A client that pushes and reads back is known by its user agent, too: many
// clients may come from one address.
type headKey struct{ client, agent, repository, digest string }

func newHeads(window time.Duration, half int, now func() time.Time) heads {
	return heads{seed: maphash.MakeSeed(), window: window, half: half, now: now, turned: now()}
}

func (h *heads) key(k headKey) uint64 { return maphash.Comparable(h.seed, k) }

func (h *heads) empty() bool { return len(h.newer)+len(h.older) == 0 }

func (h *heads) add(of headKey, tag string) {
	now := h.now()
	h.turn(now)
	if h.newer == nil {
		h.newer = make(map[uint64]head)
	}
	k := h.key(of)
	if old, ok := h.newer[k]; ok && old.tag == tag {
		tag = old.tag
	} else {
		tag = strings.Clone(tag) // the request's own string may hold a whole URL
	}
	h.newer[k] = head{tag, now}
}

func (h *heads) tag(of headKey) (string, bool) {
	if h.empty() {
		return "", false
	}
	now := h.now()
	h.turn(now)
	k := h.key(of)
	found, ok := h.newer[k]
	if !ok {
		found, ok = h.older[k]
	}
	if !ok || now.Sub(found.at) > h.window {
		return "", false
	}
	return found.tag, true
}

func (h *heads) forget(of headKey) {
	if h.empty() {
		return
	}
	k := h.key(of)
	delete(h.newer, k)
	delete(h.older, k)
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
