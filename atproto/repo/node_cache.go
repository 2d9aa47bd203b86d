package repo

import "sync"

// nodeCacheSize is how many bytes of nodes a nodeCache holds at most.
const nodeCacheSize = 2 << 20

// nodeCache keeps the nodes that proofs went through lately. All proofs go
// through the same few at the top of the tree. Pebble's own cache keeps whole
// blocks, in which a hot node lies among a dozen cold ones.
//
// A node never changes, but it may leave the tree: only who comes from a root
// knows that what is found here is in a tree.
type nodeCache struct {
	mu         sync.Mutex
	young, old map[[digestSize]byte][]byte // what is used moves to the young
	size       int                         // of the young
}

func (c *nodeCache) get(digest []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [digestSize]byte(digest)
	if data := c.young[key]; data != nil {
		return data
	}
	data := c.old[key]
	if data != nil {
		c.addLocked(key, data)
	}
	return data
}

func (c *nodeCache) add(digest, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked([digestSize]byte(digest), data)
}

// addLocked lets all go that was not used since the young became so many.
func (c *nodeCache) addLocked(key [digestSize]byte, data []byte) {
	const overhead = 64 // of an entry
	if len(data) > nodeCacheSize/16 {
		return // such a node is made to be expensive
	}
	if c.young == nil || c.size+len(data)+overhead > nodeCacheSize/2 {
		c.old, c.young, c.size = c.young, map[[digestSize]byte][]byte{}, 0
	}
	c.young[key] = data
	c.size += len(data) + overhead
}
