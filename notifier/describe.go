package notifier

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/notifier/describe"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// The counter writes the row of a push from its event alone, so that counting never
// waits for storage. runDescriber adds afterwards what only storage knows: sizes, and
// what an index lists. It processes the rows in order and keeps its position in
// state.DescribeCursor, so a crash loses nothing, and a storage that is not available
// holds up nothing else.

// runDescriber describes the rows of pushes until ctx ends.
func (n *Notifier) runDescriber(ctx context.Context) error {
	retry := n.runner.NewBackoff("describe")
	for ctx.Err() == nil {
		changed := n.progress.Wait()
		more, err := n.describeNext(ctx)
		if err != nil {
			retry.Sleep(ctx, err)
			continue
		}
		retry.Reset()
		if more {
			if err := sink.Pace(ctx); err != nil {
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

// describeNext describes the first row that has no description; false if there is
// none.
func (n *Notifier) describeNext(ctx context.Context) (more bool, err error) {
	if err := n.space(); err != nil {
		return false, err
	}
	row, err := n.undescribed()
	if err != nil || row == nil {
		return false, err
	}
	var b state.Batch
	if err := n.describeRow(ctx, &b, row); err != nil {
		return false, err
	}
	b.SetNumber(state.DescribeCursor, row.Seq)
	return true, n.state.Commit(&b, state.NoSync)
}

// undescribed is the first row after the cursor, nil if there is none.
func (n *Notifier) undescribed() (*pushrow.Push, error) {
	last, err := state.Number(n.state.Get(state.DescribeCursor))
	if err != nil {
		return nil, err
	}
	r := state.Prefix(state.Pushes)
	r.From = pushrow.Key(last+1, 0)
	var first *pushrow.Push
	err = pushrow.Each(n.state, r, func(row *pushrow.Push) error {
		first = row
		return state.ErrStop
	})
	return first, err
}

func (n *Notifier) describeRow(ctx context.Context, b *state.Batch, row *pushrow.Push) error {
	if known := knownPlatforms(row.Platforms); len(known) != len(row.Platforms) { // by an earlier version
		row.Platforms = known
		if err := pushrow.Put(b, row.Seq, pushrow.PushPart, row); err != nil {
			return err
		}
	}
	if row.Kind != event.KindImage && row.Kind != event.KindIndex || strings.HasPrefix(row.Repository, "did:") {
		return nil // images of other owners are in other registries
	}
	d, err := describe.Stored(ctx, n.storage, row.Repository, row.Digest)
	if errors.Is(err, stored.ErrNotStored) || errors.Is(err, stored.ErrUnreadable) {
		return nil // deleted meanwhile, in another registry, or damaged
	}
	if err != nil {
		return err
	}
	return pushrow.Put(b, row.Seq, pushrow.DescriptionPart, d)
}

// knownPlatforms returns the platforms of a list that event.AddPlatform would accept.
func knownPlatforms(names []string) []string {
	known := []string{}
	for _, name := range names {
		if name = post.ParsePlatform(name); name != "" && !slices.Contains(known, name) && len(known) < event.MaxPlatforms {
			known = append(known, name)
		}
	}
	return known
}
