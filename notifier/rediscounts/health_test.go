package rediscounts

import "testing"

func TestPersistenceWarnings(t *testing.T) {
	t.Parallel()
	for info, want := range map[string]int{
		"maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n":    0,
		"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n":   0,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n": 1,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n": 2,
	} {
		if got := persistenceWarnings(info); len(got) != want {
			t.Errorf("persistenceWarnings(%q) = %q, want %d reasons", info, got, want)
		}
	}
}
