package classify

// ManifestKey identifies a manifest in a repository. It is 64 bits of the manifest's digest,
// which clients cannot choose, combined with a hash of the repository's name, so that an index
// in one repository does not affect another.
type ManifestKey uint64

// KeyOf returns the key of a manifest.
func KeyOf(repository, digest string) ManifestKey {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(repository) {
		h = (h ^ uint64(repository[i])) * prime
	}
	var d uint64
	for i, n := len(digest)-1, 0; i >= 0 && n < 16; i, n = i-1, n+1 {
		d = d<<4 | uint64(hexValue(digest[i]))
	}
	return ManifestKey(h ^ d)
}

func hexValue(c byte) byte {
	if c >= 'a' {
		return (c - 'a' + 10) & 15
	}
	return c & 15
}

// supporting is the key of an artifact that was pushed and refers to another image;
// referring is the key of a manifest that was read under a referrers tag.
func (k ManifestKey) supporting() ManifestKey { return k*0x9e3779b97f4a7c15 + 1 }
func (k ManifestKey) referring() ManifestKey  { return k*0x9e3779b97f4a7c15 + 2 }

// IndexEntry says that an index lists a child, that a manifest is an artifact, or that an
// index was deleted.
type IndexEntry struct {
	Index   ManifestKey // 0: the index is unknown; artifacts: Child is an artifact
	Child   ManifestKey
	Deleted bool // Index was deleted; Child is 0
}

// artifacts is the Index of an entry that is an artifact and not a child.
const artifacts ManifestKey = 1

// IndexDeleted returns the entry for a manifest that was deleted.
func IndexDeleted(repository, digest string) IndexEntry {
	return IndexEntry{Index: KeyOf(repository, digest), Deleted: true}
}

// children is the set of the children of indexes. Like generations.Map it has two
// generations and drops the older one when the newer is full. Each generation has complete
// indexes and its own counters, so dropping one leaves the other consistent.
type children struct {
	half         int // size at which a generation is full
	newer, older generation
}

// generation is some indexes and their children. A child is in it as long as one of the
// indexes lists it.
type generation struct {
	children map[ManifestKey][]ManifestKey // by index
	listedBy map[ManifestKey]uint32        // number of indexes that list a child
	size     int                           // entries in both maps
}

func (g *generation) add(index, child ManifestKey) {
	if g.listedBy == nil {
		g.children, g.listedBy = map[ManifestKey][]ManifestKey{}, map[ManifestKey]uint32{}
	}
	if index != 0 {
		if g.children[index] == nil {
			g.size++
		}
		g.children[index] = append(g.children[index], child)
	}
	g.listedBy[child]++
	g.size++
}

func (g *generation) remove(index ManifestKey) {
	if g.children[index] != nil {
		g.size--
	}
	for _, child := range g.children[index] {
		if g.listedBy[child]--; g.listedBy[child] == 0 {
			delete(g.listedBy, child)
		}
		g.size--
	}
	delete(g.children, index)
}

func (s *children) has(k ManifestKey) bool {
	if len(s.newer.listedBy)+len(s.older.listedBy) == 0 {
		return false
	}
	return s.newer.listedBy[k] > 0 || s.older.listedBy[k] > 0
}

// addIndex adds the children of an index. It reports whether they are new to the newer
// generation.
func (s *children) addIndex(index ManifestKey, repository string, list []string) (fresh bool) {
	if _, known := s.newer.children[index]; known {
		return false
	}
	if s.newer.size+1+len(list) > s.half {
		s.older, s.newer = s.newer, generation{} // now, as a generation has complete indexes
	}
	for _, child := range list {
		s.newer.add(index, KeyOf(repository, child))
	}
	return true
}

// addUnlisted adds a child whose index is unknown.
func (s *children) addUnlisted(k ManifestKey) {
	if s.newer.listedBy[k] == 0 {
		s.add(0, k)
	}
}

func (s *children) add(index, child ManifestKey) {
	if s.newer.size >= s.half {
		s.older, s.newer = s.newer, generation{}
		for _, k := range s.older.children[index] {
			s.newer.add(index, k)
		}
	}
	s.newer.add(index, child)
}

// learn applies an entry, which may have been applied before.
func (s *children) learn(l IndexEntry) {
	switch {
	case l.Deleted:
		s.newer.remove(l.Index)
		s.older.remove(l.Index)
	case l.Index == 0:
		s.addUnlisted(l.Child)
	case !s.newer.lists(l.Index, l.Child):
		s.add(l.Index, l.Child)
	}
}

// lists reports whether the index lists the child. Only the end of a long list is searched,
// since adding a child twice does no harm.
func (g *generation) lists(index, child ManifestKey) bool {
	const searched = 64
	list := g.children[index]
	for _, k := range list[max(len(list)-searched, 0):] {
		if k == child {
			return true
		}
	}
	return false
}
