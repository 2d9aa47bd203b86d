package announce

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/state"
)

// FirstOnItsWay implements sink.Skippable.
func (s *Sink) FirstOnItsWay() (first uint64, err error) {
	batch := &announcementBatch{}
	if _, err := s.outbox().Load(batch); err != nil {
		return 0, err
	}
	for _, a := range batch.Posts {
		if seqs := a.seqs(); len(seqs) > 0 && (first == 0 || slices.Min(seqs) < first) {
			first = slices.Min(seqs)
		}
	}
	return first, nil
}

// SkipBatch implements sink.Skippable. The events of a post are given up together.
func (s *Sink) SkipBatch(ctx context.Context, upTo uint64, reason error) (events int, err error) {
	release, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	batch := &announcementBatch{}
	if pending, err := s.outbox().Load(batch); err != nil || !pending || s.DryRun {
		return 0, err
	}
	for i := len(batch.Posts) - 1; i >= 0; i-- {
		seqs := batch.Posts[i].seqs()
		if !slices.ContainsFunc(seqs, func(seq uint64) bool { return seq <= upTo }) {
			continue
		}
		written, err := s.Account.Done(ctx, batch.Posts[i].Write)
		if err != nil {
			return events, err
		}
		if written {
			continue
		}
		if err := s.giveUp(ctx, batch, i, reason); err != nil {
			return events, err
		}
		events += len(seqs)
	}
	return events, nil
}

// Processed implements sink.Skippable.
func (s *Sink) Processed() (func(seq uint64) bool, error) {
	p, err := decided.Read(s.State)
	return p.Has, err
}

// Rewind implements sink.Rewindable. The post history prevents a second post of an image.
func (s *Sink) Rewind(ctx context.Context, to, from uint64) error {
	release, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, err := decided.Read(s.State)
	if err != nil {
		return err
	}
	val, err := json.Marshal(decided.Events{Through: to, Again: max(from, p.Last())})
	if err != nil {
		return err
	}
	return state.Set(s.State, state.AnnounceDecided, val, state.Sync)
}
