package mst

import (
	"sync"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/internal/generations"
)

const (
	cacheSize     = 2 << 20        // bytes of nodes that a Cache keeps at most
	cacheOverhead = 64             // bytes of an entry
	cacheMaxNode  = cacheSize / 16 // bytes; larger nodes have keys that were chosen for that
)

// Cache keeps recently used encoded nodes by digest. All searches pass the same few
// nodes at the top of the tree. Pebble's own cache keeps whole blocks, in which a hot
// node is next to a dozen cold ones. A Cache may be used concurrently.
//
// A node never changes, but it may leave the tree: only a search from a root
// shows that a cached node belongs to its tree.
type Cache struct {
	mu    sync.Mutex
	nodes generations.Map[block.Digest, []byte]
}

// NewCache returns an empty cache of up to 2 MiB.
func NewCache() *Cache { return &Cache{nodes: generations.New[block.Digest, []byte](cacheSize)} }

// Get returns the node with this digest, nil if it is not cached.
func (c *Cache) Get(digest []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, ok := c.nodes.Get(block.Digest(digest))
	if ok {
		c.nodes.Put(block.Digest(digest), data, len(data)+cacheOverhead) // so that it stays
	}
	return data
}

// Add caches a node; data must not be changed afterwards.
func (c *Cache) Add(digest, data []byte) {
	if len(data) > cacheMaxNode {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes.Put(block.Digest(digest), data, len(data)+cacheOverhead)
}
