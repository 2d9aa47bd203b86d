package statsrecords

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How the stats records of an owner are deleted
//
// An owner can have the data about it deleted, see package forgotten. Counting goes on, and
// a record that is written later has only what was counted since. Steps:
//
//  1. Once all pushes before the event are counted, the counts of the owner's repositories
//     are written to the state, and then that they are.
//  2. The records of the owner are deleted, in pages. All records of the account are read:
//     the rows may not know each of them.
//  3. The rows are deleted, and the deletion is done.
//
// After a crash the step is repeated. Requests that are counted between the event and step 1,
// at most a second as a rule, are in no record.

// Owned returns the number of an owner's stats records.
func Owned(db state.Store, owner string) (n int, err error) {
	err = eachRow(db, func(_ string, r row) error {
		if r.Record.OwnerDID == owner {
			n++
		}
		return nil
	})
	return n, err
}

// forget deletes the stats records of owners who asked for it. It returns errUncounted while
// earlier pushes are not counted.
func (p *Publisher) forget(ctx context.Context) error {
	for {
		f, pending, err := p.forgotten.FirstPendingStats()
		if err != nil || !pending {
			return err
		}
		if err := p.ready(); err != nil {
			return err
		}
		if p.cfg.Counted() < f.Seq {
			return errUncounted
		}
		if err := p.forgetOwner(ctx, f); err != nil {
			return fmt.Errorf("delete the stats records of %s: %w", f.Owner, err)
		}
	}
}

func (p *Publisher) forgetOwner(ctx context.Context, f forgotten.PendingStats) error {
	if !f.Noted {
		if err := p.noteCounts(ctx, f); err != nil {
			return err
		}
	}
	deleted, err := p.deleteOwned(ctx, f.Owner)
	if err != nil {
		return err
	}
	var b state.Batch
	err = eachRow(p.cfg.State, func(rkey string, r row) error {
		if r.Record.OwnerDID == f.Owner {
			b.Delete(rowKey(rkey))
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.forgotten.EndPendingStats(&b, f.Owner)
	if err := p.cfg.State.Commit(&b, state.Sync); err != nil {
		return err
	}
	p.log.Info("the stats records of an owner are deleted, as the owner asked", "owner", f.Owner, "event", f.Seq, "records", deleted)
	return nil
}

// noteCounts writes the counts of an owner's repositories, which later records leave out.
func (p *Publisher) noteCounts(ctx context.Context, f forgotten.PendingStats) error {
	totals, err := p.cfg.Source.Repositories(ctx)
	if err != nil {
		return err
	}
	var b state.Batch
	noted := 0
	for _, t := range totals {
		owner, repository, known := p.split(ctx, t.Name)
		if !known || owner != f.Owner {
			continue
		}
		val, err := json.Marshal(countsOf(t, owner, repository))
		if err != nil {
			return err
		}
		b.Set(countsKey(lexicon.StatsKey(owner, repository)), val)
		if noted++; noted%pageSize != 0 {
			continue
		}
		if err := p.cfg.State.Commit(&b, state.NoSync); err != nil {
			return err
		}
		b = state.Batch{}
	}
	f.Noted = true
	if err := p.forgotten.PutPendingStats(&b, f); err != nil {
		return err
	}
	return p.cfg.State.Commit(&b, state.Sync)
}

// deleteOwned deletes the stats records of an owner, and returns how many.
func (p *Publisher) deleteOwned(ctx context.Context, owner string) (deleted int, err error) {
	for cursor := ""; ; {
		page, next, err := p.cfg.Account.List(ctx, lexicon.NSIDStats, cursor, maxWrites, true)
		if err != nil {
			return deleted, err
		}
		var writes []repo.Write
		for _, r := range page {
			if _, ok := lexicon.ReadUserStats(r.Value, owner); ok {
				writes = append(writes, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDStats, RKey: r.RKey})
			}
		}
		if len(writes) > p.cfg.Fit(writes) {
			return deleted, ErrNoPoints
		}
		if len(writes) > 0 {
			if _, err := p.cfg.Account.Apply(ctx, writes, nil); err != nil {
				return deleted, err
			}
		}
		for _, w := range writes {
			p.cfg.Metrics.written(w.Action)
		}
		deleted += len(writes)
		if cursor = next; cursor == "" {
			return deleted, nil
		}
	}
}

func countsKey(rkey string) []byte { return []byte(forgotten.Counts + rkey) }

// forgottenCounts returns the counts that records leave out, by record key.
func (p *Publisher) forgottenCounts() (map[string]lexicon.Stats, error) {
	all := map[string]lexicon.Stats{}
	err := p.cfg.State.Scan(state.Prefix(forgotten.Counts), func(key, val []byte) error {
		var s lexicon.Stats
		err := json.Unmarshal(val, &s)
		all[string(key[len(forgotten.Counts):])] = s
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the counts that are left out: %w", err)
	}
	return all, nil
}

// without returns the counts as they are without earlier ones.
func without(s, earlier lexicon.Stats) lexicon.Stats {
	s.PullCount = max(0, s.PullCount-earlier.PullCount)
	s.PushCount = max(0, s.PushCount-earlier.PushCount)
	if later(earlier.LastPull, s.LastPull) == earlier.LastPull {
		s.LastPull = ""
	}
	if later(earlier.LastPush, s.LastPush) == earlier.LastPush {
		s.LastPush = ""
	}
	return s
}
