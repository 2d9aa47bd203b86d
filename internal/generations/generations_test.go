package generations

import "testing"

func TestMap(t *testing.T) {
	t.Parallel()
	m := New[int, string](8)
	if _, ok := m.Get(1); ok || m.Len() != 0 {
		t.Error("a new map is not empty")
	}
	for i := range 1000 {
		m.Put(i, "x", 1)
		if i > 8 && m.Len() > 8 {
			t.Fatalf("%d entries, want 8 at most", m.Len())
		}
		for j := max(0, i-3); j <= i; j++ {
			if v, ok := m.Get(j); !ok || v != "x" {
				t.Fatalf("after %d: no entry for %d", i, j)
			}
		}
	}
	m.Put(999, "y", 1)
	if v, _ := m.Get(999); v != "y" {
		t.Errorf("the value is %q, want the last one", v)
	}
	for i := range 5 {
		m.Put(2000+i, "x", 1)
		m.Put(999, "y", 1)
	}
	if _, ok := m.Get(999); !ok {
		t.Error("an entry that was put again was dropped")
	}
	m.Delete(999)
	if _, ok := m.Get(999); ok {
		t.Error("a deleted entry is returned")
	}
	m.Turn()
	m.Turn()
	if m.Len() != 0 {
		t.Errorf("%d entries after two turns", m.Len())
	}
}

func TestMapBySize(t *testing.T) {
	t.Parallel()
	m := New[int, []byte](100)
	for i := range 50 {
		m.Put(i, nil, 20)
		m.Put(i, nil, 20) // which adds nothing
	}
	if m.Len() != 4 {
		t.Errorf("%d entries of size 20, want 4 of them within 100", m.Len())
	}
	m.Put(100, nil, 1000)
	if _, ok := m.Get(100); !ok || m.Len() != 3 {
		t.Errorf("%d entries; one that is larger than the limit is alone in its generation", m.Len())
	}
}
