package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// cooling is how long the cooldown of a repository still lasts; 0: it has ended.
func (s *Sink) cooling(row cooldown) time.Duration {
	if row.Posted.At.IsZero() {
		return 0
	}
	return max(0, s.Cooldown-s.clock.Age(row.Posted.event()))
}

// endCooldowns announces the waiting versions of repositories whose cooldown has ended. It returns
// when the next one with versions that wait ends.
func (s *Sink) endCooldowns(ctx context.Context) (next time.Time, err error) {
	for more := true; more; {
		var d *decision
		d, next, more, err = s.endSomeCooldowns(ctx)
		if err == nil {
			err = d.commit(ctx)
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	return next, nil
}

// endSomeCooldowns decides about as many repositories as fit into a batch; more reports
// whether there are others.
func (s *Sink) endSomeCooldowns(ctx context.Context) (d *decision, next time.Time, more bool, err error) {
	d = s.newDecision()
	rows, err := s.cooldowns()
	if err != nil {
		return d, next, false, err
	}
	for _, row := range rows {
		left := s.cooling(row)
		switch {
		case left > 0 && row.Waiting > 0:
			next = earliest(next, s.now().Add(left))
		case left > 0:
		case row.Waiting == 0:
			d.changed = true
			d.b.Delete(cooldownKey(row.Repository))
		default:
			full, err := d.full()
			if err != nil || full {
				return d, s.now(), len(d.sending) > 0, err
			}
			if err := d.endCooldown(ctx, row); err != nil {
				return d, next, false, err
			}
		}
	}
	return d, next, false, nil
}

func (s *Sink) cooldowns() (rows []cooldown, err error) {
	err = s.State.Scan(state.Prefix(state.Cooldowns), func(_, val []byte) error {
		var row cooldown
		err := json.Unmarshal(val, &row)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read cooldowns: %w", err)
	}
	return rows, nil
}

// endCooldown announces the waiting versions of a repository in one post, or lets it wait for a
// summary.
func (d *decision) endCooldown(ctx context.Context, row cooldown) error {
	versions, err := listWaiting(d.State, groupOf(row.Repository))
	if err != nil {
		return err
	}
	if err := d.removeCooling(row, versions); err != nil {
		return err
	}
	limited, err := d.limited()
	if err != nil {
		return err
	}
	late := !row.Posted.At.IsZero() && d.late(row.Posted.event(), d.Cooldown)
	if late || limited {
		reason := waitsForDay
		if late {
			reason = waitsSinceLate
		}
		return d.allToSummary(versions, reason)
	}
	a, err := d.assemble(ctx, versions)
	if err != nil || a == nil {
		return err
	}
	a.Waited = d.clock.Age(a.stamp())
	return d.addPost(ctx, a)
}

func (d *decision) allToSummary(versions []version, reason string) error {
	for _, v := range versions {
		if err := d.waitForSummary(&v, reason); err != nil {
			return err
		}
	}
	return nil
}

// assemble returns the post about the newest of some versions of a repository, which are
// ordered from the oldest; nil if none of them can be announced any more. Those that can't
// get their results.
func (d *decision) assemble(ctx context.Context, versions []version) (*announcement, error) {
	kept, err := d.recheckVersions(ctx, versions)
	if err != nil {
		return nil, err
	}
	for len(kept) > 0 {
		newest := len(kept) - 1
		a := &announcement{version: kept[newest], Others: kept[:newest]}
		a.Facts.MoreVersions = newest
		err := d.compose(a)
		var permanent *sink.PermanentError
		if !errors.As(err, &permanent) {
			return a, err
		}
		if err := d.giveUp(&a.version, permanent.Err); err != nil {
			return nil, err
		}
		kept = kept[:newest]
	}
	return nil, nil
}

// giveUp gives up the pushes of a version.
func (d *decision) giveUp(v *version, reason error) error {
	for _, seq := range v.Seqs {
		if err := d.GiveUp(seq, reason); err != nil {
			return err
		}
	}
	return d.result(v.Seqs, pushrow.Announce{Reason: reason.Error()})
}

// recheckVersions returns the versions that can still be announced, with the tags that
// they still have, and records why the others can't. A tag that several images of other
// registries were pushed under belongs to the last of them.
func (d *decision) recheckVersions(ctx context.Context, versions []version) ([]version, error) {
	checked, err := d.checkAll(ctx, versions)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	var kept []version
	for i, v := range slices.Backward(versions) {
		tags, refused := checked[i].tags, checked[i].refused
		if !v.Local {
			tags = slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return taken[v.Repository+":"+t] })
			for _, t := range tags {
				taken[v.Repository+":"+t] = true
			}
		}
		if refused.Reason == "" && !slices.ContainsFunc(tags, d.Tag) {
			refused = pushrow.Announce{Reason: reasonTagGone}
		}
		if refused.Reason == "" {
			v.Tags = tags
			kept = append(kept, v)
			continue
		}
		d.Log.Info("not announced: "+refused.Reason, "repository", v.Repository, "digest", v.Digest)
		if err := d.result(v.Seqs, refused); err != nil {
			return nil, err
		}
	}
	slices.Reverse(kept)
	return kept, nil
}
