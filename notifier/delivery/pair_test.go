package delivery

import (
	"fmt"
	"testing"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// A call does not divide a pair, unless the pair alone is too much.
func TestCut(t *testing.T) {
	t.Parallel()
	writes := func(keys string) (list []repo.Write) {
		for i, key := range keys {
			list = append(list, repo.Write{Collection: fmt.Sprint("collection", i), RKey: string(key)})
		}
		return list
	}
	for _, tc := range []struct {
		keys string
		most int
		want int
	}{
		{"abc", 2, 2}, {"abc", 5, 3}, {"aabb", 3, 2}, {"aabb", 2, 2}, {"aabb", 1, 2}, {"aab", 1, 2}, {"abb", 1, 1}, {"abb", 2, 1}, {"a", 1, 1},
	} {
		if got := cut(writes(tc.keys), tc.most); got != tc.want {
			t.Errorf("%s, at most %d: got %d, want %d", tc.keys, tc.most, got, tc.want)
		}
	}
	same := writes("aa")
	same[1].Collection = same[0].Collection
	if got := cut(same, 1); got != 1 {
		t.Errorf("two writes of one record: got %d, want 1", got)
	}
}
