package counter

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

func TestForget(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		server := redistest.Start(t)
		client := server.Client()
		rnd := rand.New(rand.NewPCG(31, 31))
		a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
		b.cfg.Host, b.cfg.Instance = "host-b", "b"
		b.reopen()
		for _, r := range []*replica{a, b} {
			r.fold(randomFacts(rnd, 300)...)
			r.publish()
		}
		list, err := inRedis(client).List(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("List = %v, %v; want two ids", list, err)
		}
		id := b.c.reg.id()
		for _, k := range list {
			pulls := int64(0)
			want := map[string]*replica{id: b, a.c.reg.id(): a}[k.ID]
			for _, n := range want.want {
				pulls += n[counts.Pull]
			}
			if k.Host != want.cfg.Host || !k.Seen.Equal(noon) || k.Repositories != len(want.want) || k.Pulls != pulls {
				t.Errorf("listed %+v, want %d repositories and %d pulls", k, len(want.want), pulls)
			}
		}
		if _, err := inRedis(client).Forget(t.Context(), "nobody", keep, 0, noon); !errors.Is(err, rediscounts.ErrUnknownID) {
			t.Errorf("Forget of an unknown id = %v, want rediscounts.ErrUnknownID", err)
		}

		// The id of a running registry can't be forgotten.
		hooked := server.Client()
		hooked.AddHook(&beforeCall{1, func() {
			b.fold(randomFacts(rnd, 5)...)
			b.publish()
		}})
		if _, err := inRedis(hooked).Forget(t.Context(), id, keep, time.Millisecond, noon); !errors.Is(err, rediscounts.ErrRunning) {
			t.Errorf("Forget of a running registry = %v, want rediscounts.ErrRunning", err)
		}
		checkSum(t, client, a, b)

		k, err := inRedis(client).Forget(t.Context(), id, keep, time.Millisecond, noon)
		if err != nil || k.Host != "host-b" || k.Repositories != len(b.want) {
			t.Fatalf("Forget = %+v, %v; want the id of host-b", k, err)
		}
		if _, err := inRedis(client).Forget(t.Context(), id, keep, time.Hour, noon); err != nil {
			t.Errorf("second Forget = %v", err)
		}
		left := []*replica{a, b}
		if !keep {
			left = left[:1]
			if keys := keysIn(t, client, "*:"+id+":*"); len(keys) != 0 {
				t.Errorf("keys that were not removed: %s", strings.Join(keys, " "))
			}
		}
		checkSum(t, client, left...)

		// The registry is started again and counts under a new id.
		for range 2 {
			before := &replica{want: map[string]map[counts.Class]int64{}}
			b.reopen()
			if !keep {
				b.want = map[string]map[counts.Class]int64{}
			}
			b.fold(randomFacts(rnd, 20)...)
			b.publish()
			checkSum(t, client, a, b, before)
			keep = true // the new id is not removed
		}
	}
}

// TestUnreadableRecords has registry ids whose record is empty or not JSON. They have no
// owner, cause no failure, and can be listed and forgotten.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	ids := rediscounts.NewKeys("").IDs()
	damaged := []string{"empty", "text"}
	if err := client.HSet(t.Context(), ids, "empty", "", "text", "{").Err(); err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, "aaaa", client)
	r.cfg.Journal = func() string { return "aaaa" }
	r.reopen() // a new folder looks for a record of its journal
	r.fold(pulls(3)...)
	r.publish()
	r.publish()
	checkSum(t, client, r)
	if got := r.differences(); len(got) > 0 {
		t.Errorf("differences: %q", got)
	}
	if r.c.reg.epoch() != 1 {
		t.Errorf("the folder has the ids %q, want no adopted one", r.c.reg.IDs)
	}

	// A damaged record of the folder itself is written again.
	if err := client.HSet(t.Context(), ids, r.c.reg.id(), "").Err(); err != nil {
		t.Fatal(err)
	}
	r.fold(pulls(2)...)
	r.publish()
	checkSum(t, client, r)

	for _, id := range damaged {
		list, err := inRedis(client).List(t.Context())
		i := slices.IndexFunc(list, func(info rediscounts.Registry) bool { return info.ID == id })
		if err != nil || i < 0 || list[i].Host != "" || list[i].Pulls != 0 {
			t.Fatalf("List = %+v, %v; want %q without host and counts", list, err, id)
		}
		info, err := inRedis(client).Forget(t.Context(), id, id == "text", time.Hour, noon)
		if err != nil || info.Removed == info.Kept {
			t.Errorf("Forget(%q) = %+v, %v", id, info, err)
		}
	}
	r.publish()
	checkSum(t, client, r)
}
