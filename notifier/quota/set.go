package quota

// A set is a set of random numbers other than 0, in 11 to 32 bytes for each: more than 22 only
// after many were removed. It is a hash table with linear probing, in which a number is its
// own hash: a lookup reads one line of the processor's cache, or a few. A map needs 24 to 40
// bytes, and several dependent reads. The zero value is an empty set.
type set struct {
	slots []uint64 // 0: free; the length is a power of 2, and one to three quarters are used
	n     int
}

// minSlots is the length of slots of a small set.
const minSlots = 16

// find returns the slot that has id, or else the free one where it belongs. There must be
// slots.
func (s *set) find(id uint64) int {
	mask := len(s.slots) - 1
	i := int(id) & mask
	for s.slots[i] != id && s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	return i
}

func (s *set) has(id uint64) bool { return s.n > 0 && s.slots[s.find(id)] == id }

func (s *set) add(id uint64) {
	if 4*(s.n+1) > 3*len(s.slots) {
		s.resize(max(minSlots, 2*len(s.slots)))
	}
	if i := s.find(id); s.slots[i] == 0 {
		s.slots[i] = id
		s.n++
	}
}

func (s *set) remove(id uint64) {
	if !s.has(id) {
		return
	}
	s.n--
	mask, free := len(s.slots)-1, s.find(id)
	// Numbers after the free slot that a lookup would not reach any more move there.
	for i := (free + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if home := int(s.slots[i]) & mask; (i-home)&mask >= (i-free)&mask {
			s.slots[free], free = s.slots[i], i
		}
	}
	s.slots[free] = 0
	if len(s.slots) > minSlots && 4*s.n < len(s.slots) {
		s.resize(len(s.slots) / 2)
	}
}

func (s *set) resize(slots int) {
	old := s.slots
	s.slots = make([]uint64, slots)
	for _, id := range old {
		if id != 0 {
			s.slots[s.find(id)] = id
		}
	}
}
