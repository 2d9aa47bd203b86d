package counter

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// differences reopens the folder, as after a kill, and returns its differences to Redis.
func (r *replica) differences() (list []string) {
	r.t.Helper()
	r.reopen()
	err := r.c.CompareRedis(r.t.Context(), func(repository, detail string) error {
		list = append(list, repository+": "+detail)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// TestCompareRedis: all differences are reported and no others, also after a response of
// Redis was lost.
func TestCompareRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	none := func(when string) {
		t.Helper()
		if got := r.differences(); len(got) > 0 {
			t.Errorf("%s: %q", when, got)
		}
	}
	none("nothing was counted")
	r.fold(randomFacts(rand.New(rand.NewPCG(1, 2)), 3000)...)
	none("nothing was sent")
	r.publish()
	none("all was sent")
	r.fold(randomFacts(rand.New(rand.NewPCG(3, 4)), 500)...)
	none("some was not sent")

	hooked := server.Client()
	hooked.AddHook(&lostAnswer{applied: true})
	r.cfg.Redis = inRedis(hooked)
	r.reopen()
	if _, err := r.c.Publish(t.Context()); err == nil {
		t.Fatal("no response was lost")
	}
	r.cfg.Redis = inRedis(client)
	none("an answer was lost")
	r.publish()
	none("it was sent after that")

	id, keys := r.c.reg.id(), rediscounts.NewKeys("")
	name := "team/app-1"
	for _, c := range []struct {
		what, want string
		do         func() error
	}{
		{"a total is deleted", "team/app-1: Redis has 0 pull of all", func() error {
			return client.HDel(t.Context(), keys.Totals(id, name), name).Err()
		}},
		{"a tag is changed", "team/app-1: Redis has 9000000 pull of tag", func() error {
			key := keys.Tags(id, name, 0)
			tags, err := client.HKeys(t.Context(), key).Result()
			if err != nil {
				return err
			}
			more := counts.Row{}
			more.Counts[counts.Pull.Index()] = 9_000_000
			return client.HSet(t.Context(), key, tags[0], more.Text(counts.PerTag)).Err()
		}},
		{"a day is added", "team/app-1: Redis has counts of 1970-04-11, and this registry has none", func() error {
			return client.HSet(t.Context(), keys.Days(id, name), counts.DayName(100), "5").Err()
		}},
		{"everything is lost", ": Redis has lost the counts of the registry id " + id, func() error {
			return client.FlushAll(t.Context()).Err()
		}},
		{"a hash is something else", "is not a hash", func() error {
			return client.Set(t.Context(), keys.Shard(id, 3), "x", 0).Err()
		}},
	} {
		if strings.Contains(c.want, "is not a hash") {
			r.publish()
			client.Del(t.Context(), keys.Shard(id, 3))
		}
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := r.differences(); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	client.Del(t.Context(), keys.Shard(id, 3))
	r.publish()
	none("it was sent again")

	back := r.clone()
	r.fold(pulls(45)...)
	r.publish()
	r.db.Close()
	back.open()
	if got := back.differences(); len(got) != 1 || !strings.Contains(got[0], "the next start takes a new id") {
		t.Errorf("set back: %q", got)
	}
	back.publish()
	if got := back.differences(); len(got) > 0 {
		t.Errorf("under the new id: %q", got)
	}
}
