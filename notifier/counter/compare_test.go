package counter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestManualChanges: manual changes in Redis are corrected within an hour, and do not affect
// the counts of other registries.
func TestManualChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(ctx context.Context, c redis.UniversalClient, id string) error{
		"a total is raised": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HSet(ctx, rediscounts.NewKeys("").Totals(id, "team/app-3"), "team/app-3", "p1000").Err()
		},
		"a total is text": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HSet(ctx, rediscounts.NewKeys("").Totals(id, "team/app-3"), "team/app-3", "many").Err()
		},
		"a total is deleted": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HDel(ctx, rediscounts.NewKeys("").Totals(id, "team/app-3"), "team/app-3").Err()
		},
		"the days are deleted": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.Del(ctx, rediscounts.NewKeys("").Days(id, "team/app-3")).Err()
		},
		"the tags are deleted": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.Del(ctx, rediscounts.NewKeys("").Tags(id, "team/app-3", 0)).Err()
		},
		"a tag is added": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HSet(ctx, rediscounts.NewKeys("").Tags(id, "team/app-3", 0), "new", "p7").Err()
		},
		"a day is added": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HSet(ctx, rediscounts.NewKeys("").Days(id, "team/app-3"), counts.DayName(counts.DayOf(noon)-8), "p7").Err()
		},
		"a repository is added": func(ctx context.Context, c redis.UniversalClient, id string) error {
			return c.HSet(ctx, rediscounts.NewKeys("").Totals(id, "new"), "new", "p7").Err()
		},
		"everything of the id is deleted": func(ctx context.Context, c redis.UniversalClient, id string) error {
			keys, err := c.Keys(ctx, "*:"+id+":*").Result()
			if err != nil {
				return err
			}
			return c.Del(ctx, keys...).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Start(t).Client()
			a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
			rnd := rand.New(rand.NewPCG(6, 6))
			for _, r := range []*replica{a, b} {
				r.fold(randomFacts(rnd, 400)...)
				r.publish()
				r.publish() // the first comparison is complete
			}
			if err := change(t.Context(), client, a.c.reg.id()); err != nil {
				t.Fatal(err)
			}
			now := noon
			for range 60 {
				now = now.Add(time.Minute)
				for _, r := range []*replica{a, b} {
					r.c.cfg.Now = at(now)
					r.publish()
				}
			}
			checkSum(t, client, a, b)
		})
	}
}

// TestGradualComparison: without a loss, each round compares a small share of the rows.
func TestGradualComparison(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", client)
	for i := range 1800 {
		r.fold(counts.Fact{Repository: fmt.Sprintf("r%d", i%50), Tag: fmt.Sprintf("v%d", i), Class: counts.Pull, Time: noon})
	}
	r.publish()
	now := noon
	for range 10 {
		r.c.cfg.Now = at(now)
		r.publish()
	}
	if r.c.publisher.comparison.last != 1900 {
		t.Fatalf("%d rows in a complete comparison, want 1900", r.c.publisher.comparison.last)
	}
	var rows int
	for range 60 {
		now = now.Add(2 * time.Second)
		r.c.cfg.Now = at(now)
		before := r.c.publisher.comparison.rows
		r.publish()
		rows = max(rows, r.c.publisher.comparison.rows-before)
	}
	if rows > 4 {
		t.Errorf("a round compares %d of 1900 rows, want about 3, to be done in half an hour", rows)
	}
}

func TestKeysOfAnotherType(t *testing.T) {
	t.Parallel()
	k := rediscounts.NewKeys("")
	for name, key := range map[string]func(id string) string{
		"totals": func(id string) string { return k.Totals(id, "team/app-3") },
		"days":   func(id string) string { return k.Days(id, "team/app-3") },
		"tags":   func(id string) string { return k.Tags(id, "team/app-3", 0) },
		"ids":    func(string) string { return k.IDs() },
		"runs":   func(string) string { return k.Runs() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := server.Client()
			r := newReplica(t, "aaaa", client)
			key := key(r.c.reg.id())
			if err := client.Set(t.Context(), key, "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
			r.fold(counts.Fact{Repository: "team/app-3", Tag: "v1", Class: counts.Pull, Time: noon})
			r.fold(counts.Fact{Repository: "team/other", Tag: "v1", Class: counts.Pull, Time: noon})
			for range 2 {
				_, err := r.c.Publish(t.Context())
				var damaged *rediscounts.DamagedError
				if !errors.As(err, &damaged) || damaged.Key != key {
					t.Fatalf("Publish = %v, want an error that names %s", err, key)
				}
				if s := r.c.Status(); s.Reason != "a key in Redis has the wrong type" {
					t.Errorf("reason %q, want that of a damaged key", s.Reason)
				}
				if val, err := client.Get(t.Context(), key).Result(); err != nil || val != "x" {
					t.Fatalf("the key was overwritten (%v)", err)
				}
				if name == "ids" || name == "runs" {
					continue
				}
				if _, _, ok, err := (&rediscounts.Sum{DB: inRedis(client)}).Repository(t.Context(), "team/other"); !ok || err != nil {
					t.Fatalf("the other repository was not sent: %v, %v", ok, err)
				}
			}
			if err := client.Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
			r.publish()
			checkSum(t, client, r)

			// Without pending counts, everything is compared again.
			client.Del(t.Context(), key)
			client.Set(t.Context(), key, "x", 0)
			r.c.publisher.claimed = r.c.publisher.claimed && name != "runs"
			r.c.publisher.compareAll()
			if _, err := r.c.Publish(t.Context()); err == nil {
				t.Fatal("Publish succeeds with a damaged key")
			}
			client.Del(t.Context(), key)
			r.publish()
			checkSum(t, client, r)
		})
	}
}

// TestDeniedCommands denies commands to the Redis user: sums never exceed the counts, and are
// right when the command is allowed again.
func TestDeniedCommands(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"hset", "hdel", "hget", "hgetall", "evalsha|eval", "time", "hlen", "hkeys", "xadd", "hmget", "del", "script"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := server.Client()
			rules := []any{"acl", "setuser", "limited", "on", ">secret", "~*", "&*", "+@all"}
			for _, one := range strings.Split(command, "|") {
				rules = append(rules, "-"+one)
			}
			limited := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "limited", Password: "secret"})
			t.Cleanup(func() { limited.Close() })
			r := newReplica(t, "aaaa", client)
			r.fold(pulls(11)...)
			r.publish()
			if err := client.Do(t.Context(), rules...).Err(); err != nil {
				t.Fatal(err)
			}
			r.c.redis = inRedis(limited)
			failed := false
			for i := range 20 {
				r.fold(counts.Fact{Repository: "x", Tag: fmt.Sprintf("v%d", i), Class: counts.Pull, Time: noon})
				if i == 10 {
					r.c.publisher.compareAll()
				}
				_, err := r.c.Publish(t.Context())
				failed = failed || err != nil
				if reason := r.c.Status().Reason; err != nil && reason != "Redis denies a command (ACL)" {
					t.Fatalf("reason %q for %v", reason, err)
				}
				if err != nil && r.c.Check(nil) == nil {
					t.Error("Check returns nil after a failed round")
				}
				got, tags, _, err := (&rediscounts.Sum{DB: inRedis(client), Now: at(noon)}).Repository(t.Context(), "x")
				if want := int64(12 + i); err != nil || got.Counts[counts.Pull] > want || addUp(func(yield func(map[counts.Class]int64) bool) {
					for _, n := range tags {
						yield(n)
					}
				})[counts.Pull] > want {
					t.Fatalf("%v and tags %v, want %d at most (%v)", got.Counts, tags, want, err)
				}
			}
			if wants := strings.Contains("hset hget hgetall evalsha|eval", command); wants != failed && wants {
				t.Errorf("publishing failed: %v, want %v", failed, wants)
			}
			r.c.redis = inRedis(client)
			r.publish()
			checkSum(t, client, r)
		})
	}
}

// TestTwoInstallations: two installations on one Redis are not summed.
func TestTwoInstallations(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	rnd := rand.New(rand.NewPCG(21, 21))
	one, two := newReplica(t, "aaaa", client), newReplica(t, "aaaa", client)
	two.cfg.Redis = rediscounts.New(client, "two")
	two.reopen()
	for _, r := range []*replica{one, two} {
		r.fold(randomFacts(rnd, 200)...)
		r.publish()
	}
	checkSum(t, client, one)
	checkSource(t, &rediscounts.Sum{DB: rediscounts.New(client, "two"), Now: at(noon)}, two.want)
	for _, key := range keysIn(t, client, "*") {
		if !strings.HasPrefix(key, "{tidings:default}:") && !strings.HasPrefix(key, "{tidings:two}:") {
			t.Errorf("unexpected key %q", key)
		}
	}
}

// TestReasons: the status and the errors of readers have the reason why Redis can't be used.
func TestReasons(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(s *redistest.Server, c redis.UniversalClient) error{
		"Redis is read-only": func(s *redistest.Server, c redis.UniversalClient) error {
			return c.Do(context.Background(), "replicaof", "127.0.0.1", "1").Err()
		},
		"Redis is out of memory": func(s *redistest.Server, c redis.UniversalClient) error {
			return errors.Join(c.ConfigSet(context.Background(), "maxmemory", "1").Err())
		},
		"Redis does not answer": func(s *redistest.Server, c redis.UniversalClient) error { s.Kill(); return nil },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := server.Client()
			now := &clock{noon}
			r := newReplica(t, "aaaa", client)
			r.c.cfg.Now = now.now
			sum := &rediscounts.Sum{DB: inRedis(client), Now: now.now, Check: r.c.Check}
			r.fold(pulls(3)...)
			if _, err := sum.Repositories(t.Context()); err == nil {
				t.Error("counts are read from Redis before the first round")
			}
			r.publish()
			if list, err := sum.Repositories(t.Context()); err != nil || len(list) != 1 {
				t.Fatalf("%v, %v", list, err)
			}
			if err := spoil(server, client); err != nil {
				t.Fatal(err)
			}
			now.at = now.at.Add(heartbeatInterval) // nothing was counted
			if _, err := r.c.Publish(t.Context()); err == nil {
				t.Fatal("Publish succeeds")
			}
			if got := r.c.Status(); got.Reason != want || got.Unreachable != (want == rediscounts.Unreachable) {
				t.Errorf("reason %q, unreachable %v (%s)", got.Reason, got.Unreachable, got.Error)
			}
			if _, _, _, err := sum.Repository(t.Context(), "x"); err == nil {
				t.Error("counts are still read from Redis")
			}
		})
	}
}

// TestReadersDetectLoss: readers detect a loss between two rounds.
func TestReadersDetectLoss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
	for _, r := range []*replica{a, b} {
		r.cfg.Now = now.now
		r.reopen()
		r.fold(pulls(5)...)
		r.publish()
	}
	a.publish()
	sum := &rediscounts.Sum{DB: inRedis(client), Now: now.now, Check: a.c.Check}
	answers := func() error {
		_, err := sum.Repositories(t.Context())
		_, _, _, err2 := sum.Repository(t.Context(), "x")
		_, err3 := sum.Daily(t.Context(), "x", 3)
		if (err == nil) != (err2 == nil) || (err == nil) != (err3 == nil) {
			t.Errorf("reads fail with %v, %v and %v; want all of them to fail or none", err, err2, err3)
		}
		return err
	}
	if err := answers(); err != nil {
		t.Fatal(err)
	}
	dump := server.Dump()
	now.at = now.at.Add(heartbeatInterval)
	a.publish()
	b.fold(pulls(5)...)
	b.publish()
	a.publish()

	server.Restore(dump)
	if err := answers(); err == nil || !strings.Contains(err.Error(), reasonLost) {
		t.Errorf("after an older dump: %v", err)
	}
	a.publish()
	if err := answers(); err == nil || !strings.Contains(err.Error(), reasonOthers) {
		t.Errorf("the other registry has not sent its counts again: %v", err)
	}
	b.publish()
	a.publish()
	if err := answers(); err != nil {
		t.Errorf("all counts are back: %v", err)
	}
	checkSum(t, client, a, b)

	server.Flush()
	if err := answers(); err == nil || !strings.Contains(err.Error(), reasonLost) {
		t.Errorf("after a flush: %v", err)
	}
	a.publish()
	if err := answers(); err == nil || !strings.Contains(err.Error(), reasonOthers) {
		t.Errorf("the other registry has not sent its counts again: %v", err)
	}
	for range 7 { // the other registry does not come back
		now.at = now.at.Add(heartbeatInterval)
		a.publish()
	}
	if err := answers(); err != nil {
		t.Errorf("the remaining counts are not shown: %v", err)
	}
}

// TestNeededCommands uses a Redis user with the permissions that docs/redis.md lists.
func TestNeededCommands(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	doc, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "A Redis user needs `")
	commands, _, _ := strings.Cut(rest, "`")
	if !ok {
		t.Fatal("docs/redis.md has no list of commands")
	}
	rules := []any{"acl", "setuser", "limited", "on", ">secret", "~{tidings:default}:*", "-@all", "+unlink"}
	for _, command := range strings.Fields(commands) {
		rules = append(rules, "+"+strings.ToLower(command))
	}
	if err := client.Do(t.Context(), rules...).Err(); err != nil {
		t.Fatal(err)
	}
	limited := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "limited", Password: "secret"})
	t.Cleanup(func() { limited.Close() })
	r := newReplica(t, "aaaa", limited)
	r.cfg.Learn = func(...classify.IndexEntry) {}
	r.reopen()
	r.fold(counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon, Children: []string{digest(1)}})
	r.fold(randomFacts(rand.New(rand.NewPCG(41, 41)), 300)...)
	r.publish()
	client.HSet(t.Context(), rediscounts.NewKeys("").Totals(r.c.reg.id(), "new"), "new", "p7")
	r.c.publisher.compareAll()
	r.publish()
	checkSum(t, limited, r)
	if known, err := r.c.AllUses(t.Context(), "x", func(lastuse.Key, lastuse.Use) error { return nil }); err != nil || known.Missing != "" {
		t.Errorf("AllUses = %+v, %v", known, err)
	}
	if err := r.c.inspect(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := rediscounts.New(limited, "").Forget(t.Context(), r.c.reg.id(), false, 0, noon); err != nil {
		t.Error(err)
	}
}

// TestCluster: all keys of an installation are in one slot.
func TestCluster(t *testing.T) {
	t.Parallel()
	_, client := redistest.StartCluster(t)
	rnd := rand.New(rand.NewPCG(51, 51))
	a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
	for range 2 {
		for _, r := range []*replica{a, b} {
			r.fold(randomFacts(rnd, 300)...)
			r.publish()
		}
	}
	checkSum(t, client, a, b)
	if err := a.c.inspect(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := inRedis(client).Forget(t.Context(), b.c.reg.id(), false, 0, noon); err != nil {
		t.Error(err)
	}
	checkSum(t, client, a)
}
