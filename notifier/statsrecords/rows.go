package statsrecords

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A row is what the state has of a record. Its key is state.StatsRecords and the
// record key.
type row struct {
	Name   string        `json:"name"` // under which the repository is counted
	Record lexicon.Stats `json:"record"`
}

func rowKey(rkey string) []byte { return []byte(state.StatsRecords + rkey) }

// putRow adds the row of a step to the batch, or its deletion.
func putRow(b *state.Batch, s step) {
	if s.row == nil {
		b.Delete(rowKey(s.rkey))
		return
	}
	val, err := json.Marshal(s.row)
	if err != nil {
		panic(err) // it has only strings and integers
	}
	b.Set(rowKey(s.rkey), val)
}

// rows returns all rows by record key.
func (p *Publisher) rows() (map[string]row, error) {
	all := map[string]row{}
	err := eachRow(p.cfg.State, func(rkey string, r row) error {
		all[rkey] = r
		return nil
	})
	return all, err
}

// eachRow calls visit with each row and its record key.
func eachRow(db state.Store, visit func(rkey string, r row) error) error {
	err := db.Scan(state.Prefix(state.StatsRecords), func(key, val []byte) error {
		var r row
		if err := json.Unmarshal(val, &r); err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		return visit(string(key[len(state.StatsRecords):]), r)
	})
	if err != nil {
		return fmt.Errorf("read stats rows: %w", err)
	}
	return nil
}

// pageSize is how many records are read at a time.
const pageSize = 1000

// readRows replaces all rows by those of the account's records.
func (p *Publisher) readRows(ctx context.Context) error {
	var b state.Batch
	b.DeleteRange(state.Prefix(state.StatsRecords))
	for cursor := ""; ; {
		page, next, err := p.cfg.Account.List(ctx, lexicon.NSIDStats, cursor, pageSize, true)
		if err != nil {
			return err
		}
		for _, r := range page {
			s, err := lexicon.ReadStats(r.Value)
			if err == nil && r.RKey == lexicon.StatsKey(s.OwnerDID, s.Repository) {
				putRow(&b, step{difference: difference{rkey: r.RKey}, row: &row{p.nameOf(ctx, s), s}})
			}
		}
		if err := p.cfg.State.Commit(&b, state.NoSync); err != nil {
			return err
		}
		if b, cursor = (state.Batch{}), next; cursor == "" {
			return ctx.Err()
		}
	}
}
