package rediscounts

import (
	"fmt"
	"testing"
)

func TestShardOf(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	for i := range 6400 {
		seen[ShardOf(fmt.Sprintf("team/app-%d", i))]++
	}
	for i := range Shards {
		if seen[i] < 30 || seen[i] > 300 {
			t.Errorf("shard %d has %d of 6400 repositories", i, seen[i])
		}
	}
}
