package mst

import (
	"sync"

	"github.com/tidings-dev/tidings/atproto/block"
)

// CacheSize is how many bytes of nodes a Cache keeps at most.
const CacheSize = 2 << 20

// Cache keeps recently used encoded nodes by digest. All searches pass the same
// few nodes at the top of the tree; Pebble's own cache keeps whole blocks, in
// which a hot node lies among a dozen cold ones. The zero Cache is ready to use,
// by several goroutines.
//
// It has two generations: a lookup moves a node to the young one, and when that
// is full the old one is dropped.
//
// A node never changes, but it may leave the tree: only a search from a root
// shows that a cached node belongs to its tree.
type Cache struct {
	mu         sync.Mutex
	young, old map[block.Digest][]byte
	size       int // of the young generation
}

// Get returns the node with this digest, nil if it is not cached.
func (c *Cache) Get(digest []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := block.Digest(digest)
	if data := c.young[key]; data != nil {
		return data
	}
	data := c.old[key]
	if data != nil {
		c.addLocked(key, data)
	}
	return data
}

// Add caches a node; data must not be changed afterwards.
func (c *Cache) Add(digest, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(block.Digest(digest), data)
}

func (c *Cache) addLocked(key block.Digest, data []byte) {
	const overhead = 64 // of an entry
	if len(data) > CacheSize/16 {
		return // only keys that are chosen for it make such a large node
	}
	if c.young == nil || c.size+len(data)+overhead > CacheSize/2 {
		c.old, c.young, c.size = c.young, map[block.Digest][]byte{}, 0
	}
	c.young[key] = data
	c.size += len(data) + overhead
}
