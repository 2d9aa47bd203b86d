package counter

// ChildKey stands for a manifest in a repository: a child of an index, or the
// index. It holds 64 bits of the manifest's digest, which nobody can choose at
// will, mixed with the repository's name: what one repository lists says nothing
// about another.
type ChildKey uint64

func childKey(repository, digest string) ChildKey {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(repository) {
		h = (h ^ uint64(repository[i])) * prime
	}
	var d uint64
	for i, n := len(digest)-1, 0; i >= 0 && n < 16; i, n = i-1, n+1 {
		d = d<<4 | uint64(hexValue(digest[i]))
	}
	return ChildKey(h ^ d)
}

func hexValue(c byte) byte {
	if c >= 'a' {
		return (c - 'a' + 10) & 15
	}
	return c & 15
}

// supporting is the key of an artifact that says something about another image, and
// referring of one that a referrers tag has shown.
func (k ChildKey) supporting() ChildKey { return k*0x9e3779b97f4a7c15 + 1 }
func (k ChildKey) referring() ChildKey  { return k*0x9e3779b97f4a7c15 + 2 }

// IndexEntry is one thing to remember, or to forget, about the manifests of a
// repository.
type IndexEntry struct {
	Index   ChildKey // lists Child; 0: it is not known which does
	Child   ChildKey
	Deleted bool // Index was deleted; Child is 0
}

// artifacts stands for an index in what is no child: the key of an artifact.
const artifacts ChildKey = 1

// IndexDeleted says that a manifest was deleted.
func IndexDeleted(repository, digest string) IndexEntry {
	return IndexEntry{Index: childKey(repository, digest), Deleted: true}
}

// children is a set that forgets what wasn't seen for longest: when the newer
// half is full it becomes the older one, and the older one goes.
type children struct {
	half         int
	newer, older listed
}

// listed holds what indexes list. A child is known as long as an index lists it.
type listed struct {
	children map[ChildKey][]ChildKey // what an index lists
	listedBy map[ChildKey]uint32     // how many list a child
	size     int                     // entries of both
}

func (l *listed) add(index, child ChildKey) {
	if l.listedBy == nil {
		l.children, l.listedBy = map[ChildKey][]ChildKey{}, map[ChildKey]uint32{}
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

func (l *listed) remove(index ChildKey) {
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

func (s *children) has(k ChildKey) bool {
	if len(s.newer.listedBy)+len(s.older.listedBy) == 0 {
		return false
	}
	return s.newer.listedBy[k] > 0 || s.older.listedBy[k] > 0
}

// index adds what an index lists, and tells whether the index was not in the
// newer half yet.
func (s *children) addIndex(index ChildKey, repository string, list []string) (fresh bool) {
	if _, known := s.newer.children[index]; known {
		return false
	}
	if s.newer.size+1+len(list) > s.half {
		s.older, s.newer = s.newer, listed{} // an index is in a half as a whole
	}
	for _, child := range list {
		s.newer.add(index, childKey(repository, child))
	}
	return true
}

// alone adds a key that nothing is known to list.
func (s *children) addUnlisted(k ChildKey) {
	if s.newer.listedBy[k] == 0 {
		s.add(0, k)
	}
}

func (s *children) add(index, child ChildKey) {
	if s.newer.size >= s.half {
		s.older, s.newer = s.newer, listed{}
		for _, k := range s.older.children[index] {
			s.newer.add(index, k)
		}
	}
	s.newer.add(index, child)
}

// learn takes in what is stored or what another replica found. What is known
// already may come again.
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

// lists reports whether the index is known to list the child. Of a long list only
// the end is looked at: that something is in it twice does no harm.
func (l *listed) lists(index, child ChildKey) bool {
	const looked = 64
	list := l.children[index]
	for _, k := range list[max(len(list)-looked, 0):] {
		if k == child {
			return true
		}
	}
	return false
}
