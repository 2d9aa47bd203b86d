package classify

// ManifestKey identifies a manifest in a repository: an index or a child of one. It is
// 64 bits of the manifest's digest, which cannot be chosen at will, mixed with the
// repository's name, so that what one repository lists does not affect another.
type ManifestKey uint64

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

// supporting is the key of an artifact that refers to another image; referring is the
// key of one that a referrers tag has shown.
func (k ManifestKey) supporting() ManifestKey { return k*0x9e3779b97f4a7c15 + 1 }
func (k ManifestKey) referring() ManifestKey  { return k*0x9e3779b97f4a7c15 + 2 }

// IndexEntry is something to remember about the manifests of a repository: a child of
// an index, an artifact, or that an index was deleted.
type IndexEntry struct {
	Index   ManifestKey // lists Child; 0: the index is unknown; artifacts: Child is an artifact
	Child   ManifestKey
	Deleted bool // Index was deleted; Child is 0
}

// artifacts is the Index of an entry that is an artifact and not a child.
const artifacts ManifestKey = 1

// IndexDeleted returns the entry for a manifest that was deleted.
func IndexDeleted(repository, digest string) IndexEntry {
	return IndexEntry{Index: KeyOf(repository, digest), Deleted: true}
}

// children is a set of the children of indexes. Like generations.Map it keeps two
// generations and drops the older one when the newer is full. Each generation has
// whole indexes with the number of times that they list a child, so that dropping
// one leaves the other consistent.
type children struct {
	half         int
	newer, older listed
}

// listed is what some indexes list. A child is known as long as one index lists it.
type listed struct {
	children map[ManifestKey][]ManifestKey // by index
	listedBy map[ManifestKey]uint32        // number of indexes that list a child
	size     int                           // entries in both maps
}

func (l *listed) add(index, child ManifestKey) {
	if l.listedBy == nil {
		l.children, l.listedBy = map[ManifestKey][]ManifestKey{}, map[ManifestKey]uint32{}
	}
	if index != 0 {
		if l.children[index] == nil {
			l.size++
		}
		l.children[index] = append(l.children[index], child)
	}
	l.listedBy[child]++
	l.size++
}

func (l *listed) remove(index ManifestKey) {
	if l.children[index] != nil {
		l.size--
	}
	for _, child := range l.children[index] {
		if l.listedBy[child]--; l.listedBy[child] == 0 {
			delete(l.listedBy, child)
		}
		l.size--
	}
	delete(l.children, index)
}

func (s *children) has(k ManifestKey) bool {
	if len(s.newer.listedBy)+len(s.older.listedBy) == 0 {
		return false
	}
	return s.newer.listedBy[k] > 0 || s.older.listedBy[k] > 0
}

// addIndex adds the children of an index and reports whether the index was not in the
// newer generation yet.
func (s *children) addIndex(index ManifestKey, repository string, list []string) (fresh bool) {
	if _, known := s.newer.children[index]; known {
		return false
	}
	if s.newer.size+1+len(list) > s.half {
		s.older, s.newer = s.newer, listed{} // an index is in one generation as a whole
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
		s.older, s.newer = s.newer, listed{}
		for _, k := range s.older.children[index] {
			s.newer.add(index, k)
		}
	}
	s.newer.add(index, child)
}

// learn adds what is stored or what another registry found. It may be known already.
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

// lists reports whether the index is known to list the child. Only the end of a long
// list is searched; a child that is listed twice is harmless.
func (l *listed) lists(index, child ManifestKey) bool {
	const looked = 64
	list := l.children[index]
	for _, k := range list[max(len(list)-looked, 0):] {
		if k == child {
			return true
		}
	}
	return false
}
