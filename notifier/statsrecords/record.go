package statsrecords

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// countsOf returns the record of a repository without the time of its update.
func countsOf(t counts.Totals, owner, repository string) lexicon.Stats {
	return lexicon.Stats{
		OwnerDID: owner, Repository: repository,
		PullCount: t.Counts[counts.Pull], PushCount: t.Counts[counts.Push],
		LastPull: datetime(t.LastPull), LastPush: datetime(t.LastPush),
	}
}

// split returns the owner and the repository of a name under which a repository is
// counted: that of an image which another registry reports begins with the owner's DID. The
// owner is not known while its handle can't be resolved.
func (p *Publisher) split(ctx context.Context, name string) (owner, repository string, known bool) {
	if strings.HasPrefix(name, "did:") {
		if owner, repository, ok := strings.Cut(name, "/"); ok {
			return owner, repository, true
		}
	}
	owner, known = p.cfg.OwnerOf(ctx, name)
	return owner, name, known
}

// nameOf is the inverse of split.
func (p *Publisher) nameOf(ctx context.Context, s lexicon.Stats) string {
	if owner, known := p.cfg.OwnerOf(ctx, s.Repository); known && s.OwnerDID == owner {
		return s.Repository
	}
	return s.OwnerDID + "/" + s.Repository
}

func datetime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return lexicon.Datetime(t)
}

// raise returns the published record with those counts and times that are higher now,
// and whether there are any. Without a published record it is the zero value.
func raise(published, counted lexicon.Stats) (raised lexicon.Stats, more bool) {
	raised = lexicon.Stats{
		OwnerDID: counted.OwnerDID, Repository: counted.Repository,
		PullCount: max(published.PullCount, counted.PullCount),
		PushCount: max(published.PushCount, counted.PushCount),
		LastPull:  later(published.LastPull, counted.LastPull),
		LastPush:  later(published.LastPush, counted.LastPush),
		UpdatedAt: published.UpdatedAt,
	}
	return raised, raised != published
}

// later returns the later of two times in RFC 3339, of which "" is the earliest.
func later(a, b string) string {
	x, errA := time.Parse(time.RFC3339, a)
	y, errB := time.Parse(time.RFC3339, b)
	if errB != nil || errA == nil && !y.After(x) {
		return a
	}
	return b
}

// plan compares a difference with the record that the account has, and returns the
// write that is needed; its Action is "" if there is none. A *repo.WriteError means
// that the record would be invalid.
func (p *Publisher) plan(ctx context.Context, began time.Time, d difference) (step, error) {
	s := step{difference: d}
	published, exists, err := p.published(ctx, d.rkey)
	if err != nil {
		return s, err
	}
	if d.counts == nil {
		if exists {
			s.write = repo.Write{Action: repo.Delete, Collection: lexicon.NSIDStats, RKey: d.rkey}
		}
		return s, nil
	}
	raised, more := raise(published, *d.counts)
	s.row = &row{Name: d.name, Record: published}
	if !more || p.within(began, published) {
		return s, nil
	}
	raised.UpdatedAt = lexicon.Datetime(p.cfg.Now())
	record, err := encode(raised)
	if err != nil {
		return s, &repo.WriteError{Path: lexicon.NSIDStats + "/" + d.rkey, Err: err}
	}
	s.row.Record = raised
	s.write = repo.Write{Action: repo.Create, Collection: lexicon.NSIDStats, RKey: d.rkey, Record: record}
	if exists {
		s.write.Action = repo.Update
	}
	return s, nil
}

// published returns the record that the account has, the zero value if it is invalid.
func (p *Publisher) published(ctx context.Context, rkey string) (s lexicon.Stats, exists bool, err error) {
	_, value, err := p.cfg.Account.Get(ctx, lexicon.NSIDStats, rkey)
	if errors.Is(err, repo.ErrNotFound) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("read stats record %s: %w", rkey, err)
	}
	if s, err = lexicon.ReadStats(value); err != nil {
		return lexicon.Stats{}, true, nil
	}
	return s, true, nil
}

// encode returns the DAG-CBOR of a valid record.
func encode(s lexicon.Stats) ([]byte, error) {
	record, err := lexicon.Encode(s)
	if err == nil {
		_, err = lexicon.Validate(lexicon.NSIDStats, record)
	}
	return record, err
}
