package counter

// ChildKey stands for a child of an index in a repository. It holds 64 bits of
// the child's digest, which nobody can choose at will, mixed with the
// repository's name: what one repository lists says nothing about another.
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

// children is a set that forgets what wasn't seen for longest: when the newer
// half is full it becomes the older one, and the older one goes.
type children struct {
	half         int
	newer, older map[ChildKey]struct{}
}

func (s *children) has(k ChildKey) bool {
	if _, ok := s.newer[k]; ok {
		return true
	}
	_, ok := s.older[k]
	return ok
}

// add tells whether k was not in the newer half yet.
func (s *children) add(k ChildKey) bool {
	if _, ok := s.newer[k]; ok {
		return false
	}
	if len(s.newer) >= s.half {
		s.older, s.newer = s.newer, nil
	}
	if s.newer == nil {
		s.newer = make(map[ChildKey]struct{})
	}
	s.newer[k] = struct{}{}
	return true
}
