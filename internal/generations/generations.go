// Package generations is a map of bounded size that drops the oldest entries.
//
// Entries are kept in two generations. An entry is added to the newer one. When
// that is full it becomes the older one, and the previous older one is dropped as
// a whole, so entries need no list and no timestamps. Each entry is kept at least
// until entries of half of the limit were added after it.
package generations

// Map is a map of bounded size. It is not safe for concurrent use.
type Map[K comparable, V any] struct {
	half         int
	size         int // of newer
	newer, older map[K]V
}

// New returns a Map whose entries have a total size of at most limit, in the
// unit of Put.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{half: max(limit/2, 1)}
}

// Get returns the value of a key. It doesn't keep the entry for longer; a caller
// that wants this puts it again.
func (m *Map[K, V]) Get(k K) (V, bool) {
	if v, ok := m.newer[k]; ok {
		return v, true
	}
	v, ok := m.older[k]
	return v, ok
}

// Put sets the value of a key and makes its entry one of the newest. The size is
// 1 for a Map that is bounded by the number of its entries; it must be the same
// each time that the key is put. Put reports whether a new generation began.
func (m *Map[K, V]) Put(k K, v V, size int) (turned bool) {
	if _, ok := m.newer[k]; ok {
		m.newer[k] = v
		return false
	}
	if turned = m.size > 0 && m.size+size > m.half; turned {
		m.Turn()
	}
	if m.newer == nil {
		m.newer = make(map[K]V)
	}
	m.newer[k] = v
	m.size += size
	return turned
}

// Delete removes a key.
func (m *Map[K, V]) Delete(k K) {
	delete(m.newer, k)
	delete(m.older, k)
}

// Turn begins a new generation and drops the older one. Two calls drop
// everything.
func (m *Map[K, V]) Turn() {
	m.newer, m.older, m.size = nil, m.newer, 0
}

// Len returns the number of entries; a key in both generations counts twice.
func (m *Map[K, V]) Len() int { return len(m.newer) + len(m.older) }
