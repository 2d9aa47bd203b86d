package hold

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/firehose"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// eventLog is the repository's event log as the firehose reads it.
type eventLog struct{ *repo.Repo }

func (l eventLog) Head() uint64 { return l.Repo.Head().Seq }

func (l eventLog) Lost() (uint64, error) { return l.DroppedEvents() }

func (l eventLog) Events(after uint64, limit int) ([]firehose.Event, error) {
	page, err := l.Repo.Events(after, limit)
	if err != nil {
		return nil, err
	}
	events := make([]firehose.Event, len(page))
	for i, e := range page {
		events[i] = firehose.Event(e)
	}
	return events, nil
}

// introduce is for those who have never heard of the account.
func (l eventLog) introduce(ctx context.Context) error {
	if l.MovedTo() != "" {
		return l.Notify(ctx, repo.Identity, repo.Deactivated)
	}
	return l.Notify(ctx, repo.Identity, repo.Account, repo.Sync)
}
