package announce

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A summary is written
//
//   - when versions wait that were too old for a post, as soon as no older events are
//     pending, and not within an hour of the last summary,
//   - when a day begins, if versions wait because of the daily limit of an earlier day,
//   - at once, if maxOfSummary versions wait.
//
// It has all versions that wait for a summary then.
const summaryInterval = time.Hour

// summaryDue reports whether a summary is to be written, or when.
func (s *Sink) summaryDue(q queue, complete bool) (due bool, next time.Time) {
	if q.Summary == 0 {
		return false, time.Time{}
	}
	if q.Summary >= maxOfSummary || q.Day != "" && q.Day != s.today() {
		return true, time.Time{}
	}
	if q.Day != "" {
		next = s.tomorrow()
	}
	if q.Late == 0 {
		return false, next
	}
	left := time.Duration(0)
	if !q.Last.At.IsZero() {
		left = summaryInterval - s.clock.Age(q.Last.event())
	}
	if left <= 0 && complete {
		return true, time.Time{}
	}
	return false, earliest(next, s.now().Add(max(left, 0)))
}

// summarize writes a summary if it is due, and returns when the next one may be.
func (s *Sink) summarize(ctx context.Context, complete bool) (next time.Time, err error) {
	d := s.newDecision()
	q, err := d.queue()
	if err != nil {
		return time.Time{}, err
	}
	due, next := s.summaryDue(q, complete)
	if !due {
		return next, nil
	}
	versions, err := listWaiting(s.State, summaryGroup)
	if err != nil {
		return time.Time{}, err
	}
	d.b.DeleteRange(state.Prefix(state.Waiting + string(summaryGroup[:])))
	kept, err := d.recheckVersions(ctx, versions)
	if err != nil {
		return time.Time{}, err
	}
	q = queue{Cooling: q.Cooling, Last: newStamp(s.clock)}
	if err := d.setQueue(q); err != nil {
		return time.Time{}, err
	}
	if len(kept) > 0 {
		a := &announcement{version: version{Time: q.Last.At, TID: q.Last.TID, ClockID: q.Last.ClockID}, Others: kept}
		if err := d.composeSummary(a); err != nil {
			return time.Time{}, err
		}
		d.sending = append(d.sending, *a)
	}
	return time.Time{}, d.commit(ctx)
}

// composeSummary writes the post of a summary, whose key and time are those of the
// announcement.
func (s *Sink) composeSummary(a *announcement) error {
	first, last := a.Others[0], a.Others[len(a.Others)-1]
	summary := post.Summary{Since: first.Time, Until: last.Time, Images: len(a.Others), Repositories: s.versionsByRepository(a.Others)}
	record, err := post.ComposeSummary(summary, s.Langs, time.UnixMicro(a.TID))
	if err != nil {
		return fmt.Errorf("write summary: %w", err) // the text of a summary always fits
	}
	encoded, err := post.Encode(record)
	if err != nil {
		return err
	}
	a.Write = repo.Write{Action: repo.Create, Collection: lexicon.NSIDPost, RKey: event.TID(a.TID, a.ClockID), Record: encoded}
	return nil
}

// versionsByRepository lists the versions of each repository, in the order of names.
func (s *Sink) versionsByRepository(versions []version) []post.RepositoryVersions {
	var list []post.RepositoryVersions
	index := map[string]int{}
	for _, v := range versions {
		i, ok := index[v.Repository]
		if !ok {
			i = len(list)
			index[v.Repository] = i
			list = append(list, post.RepositoryVersions{Name: v.Repository})
		}
		list[i].Versions = append(list[i].Versions, s.tagOrder(v.Tags)[0])
	}
	slices.SortFunc(list, func(a, b post.RepositoryVersions) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// A checked is the result of check.
type checked struct {
	tags    []string
	refused pushrow.Announce
}

// checkAll checks versions, several at a time, since an object store takes a while for each
// answer.
func (s *Sink) checkAll(ctx context.Context, versions []version) ([]checked, error) {
	results := make([]checked, len(versions))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	for i, v := range versions {
		g.Go(func() error {
			before, err := s.posts.Get(v.Repository, v.Digest)
			if err == nil {
				results[i].tags, results[i].refused, err = s.check(ctx, &v, before)
			}
			return err
		})
	}
	return results, g.Wait()
}
