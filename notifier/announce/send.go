package announce

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// send writes the posts and records them. One that the repo refuses for good is given
// up, and the others are written.
func (s *Sink) send(ctx context.Context, batch *announcementBatch, fresh bool) error {
	for {
		writes := make([]repo.Write, len(batch.Posts))
		for i, a := range batch.Posts {
			writes[i] = a.Write
		}
		err := s.Account.Deliver(ctx, writes, fresh)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) {
			if err != nil {
				return err
			}
			return s.finish(ctx, batch)
		}
		if err := s.drop(batch, invalid); err != nil {
			return err
		}
		fresh = false
	}
}
