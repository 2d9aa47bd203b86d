package announce

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// send writes the posts, with their pictures and documents, and records them. A post that
// the repo refuses for good is given up, and the others are written.
func (s *Sink) send(ctx context.Context, batch *announcementBatch, fresh bool) error {
	for {
		if err := s.prepareCards(ctx, batch, fresh); err != nil {
			return err
		}
		err := s.Account.Deliver(ctx, batch.writes(), fresh)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) {
			if err != nil {
				return err
			}
			s.countCards(batch)
			return s.finish(ctx, batch)
		}
		fresh = false
		again, err := s.rescue(ctx, batch, invalid)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if err := s.drop(ctx, batch, invalid); err != nil {
			return err
		}
	}
}
