package notifier

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// The counters write the row of a push from its event alone, for numbers must not
// wait for storage. What only storage knows is added here, behind them: sizes, and
// what an index lists. The rows are the queue, so a crash loses none of it, and a
// storage that is away holds nothing else up.

// describedKey holds the number of the last push whose row was described.
var describedKey = []byte("b/described")

// describeRows adds descriptions to the rows of pushes until ctx ends.
func (n *Notifier) describeRows(ctx context.Context) error {
	wait := n.newBackoff("describe")
	for ctx.Err() == nil {
		changed := n.results.listen()
		more, err := n.describeNext(ctx)
		if err != nil {
			wait.sleep(ctx, err)
			continue
		}
		wait.reset()
		if more {
			if err := pace(ctx); err != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// describeNext describes the first row that is not, false if there is none.
func (n *Notifier) describeNext(ctx context.Context) (more bool, err error) {
	if err := n.Space(); err != nil {
		return false, err
	}
	seq, row, err := n.undescribed()
	if err != nil || row == nil {
		return false, err
	}
	b := &state.Batch{}
	if err := n.describeRow(ctx, b, seq, row); err != nil {
		return false, err
	}
	b.Set(describedKey, binary.BigEndian.AppendUint64(nil, seq))
	return true, n.State.Commit(b, state.NoSync)
}

// undescribed is the first row behind the last that was described, nil if there
// is none.
func (n *Notifier) undescribed() (uint64, *stats.Push, error) {
	last := uint64(0)
	val, err := n.State.Get(describedKey)
	if err == nil && len(val) == 8 {
		last = binary.BigEndian.Uint64(val)
	} else if err != nil && !errors.Is(err, state.ErrNotFound) {
		return 0, nil, err
	}
	var seq uint64
	var row *stats.Push
	err = n.State.Scan(state.Range{From: rowKey(last+1, 0), To: []byte("p0")}, func(key, val []byte) error {
		if key[len(key)-1] != 'e' {
			return nil
		}
		row = &stats.Push{}
		if err := json.Unmarshal(val, row); err != nil {
			return fmt.Errorf("read pushes: %w", err)
		}
		seq = binary.BigEndian.Uint64(key[2:10])
		return state.Stop
	})
	return seq, row, err
}

func (n *Notifier) describeRow(ctx context.Context, b *state.Batch, seq uint64, row *stats.Push) error {
	if known := knownPlatforms(row.Platforms); len(known) != len(row.Platforms) { // by an earlier version
		row.Platforms = known
		if err := putResult(b, seq, row); err != nil {
			return err
		}
	}
	kind := Kind(row.Kind)
	if kind != KindImage && kind != KindIndex || strings.HasPrefix(row.Repository, "did:") {
		return nil // another owner's is in another registry
	}
	d, err := n.describe(ctx, row.Repository, row.Digest)
	if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
		return nil // deleted meanwhile, told by another registry, or damaged
	}
	if err != nil {
		return err
	}
	return putResult(b, seq, d)
}

// knownPlatforms is what addPlatform leaves of a list.
func knownPlatforms(names []string) []string {
	known := []string{}
	for _, name := range names {
		if name = post.ParsePlatform(name); name != "" && !slices.Contains(known, name) && len(known) < maxPlatforms {
			known = append(known, name)
		}
	}
	return known
}

// addDescription fills in what storage has told of a push, if it has.
func (n *Notifier) addDescription(seq uint64, p *stats.Push) error {
	var d description
	has, err := n.getResult(seq, 'd', &d)
	if has {
		p.Size, p.Layers, p.Platforms = d.Size, d.Layers, d.Platforms
	}
	return err
}
