package notifier

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/describe"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// States of a push in the API.
const (
	statePending = "pending" // a sink has not processed it yet
	stateDone    = "done"
	stateCounted = "counted" // counted, and nothing of it is published
	stateFailed  = "failed"  // a sink gave it up
)

// loadPublicRows reads pushrow.Public from the state.
func (n *Notifier) loadPublicRows() error {
	return pushrow.Each(n.state, state.Prefix(state.Pushes), func(row *pushrow.Push) error {
		n.publicRows.Add(row, n.public)
		return nil
	})
}

// result is the result of a push so far, as the output of notifyManifest. known
// is false if there are no rows.
func (n *Notifier) result(seq uint64) (out lexicon.NotifyManifestOutput, known bool, err error) {
	out = lexicon.NotifyManifestOutput{Success: true, Operation: event.OpPush}
	if out.StatsUpdated, err = state.Has(n.state, pushrow.Key(seq, pushrow.PushPart)); err != nil {
		return out, false, err
	}
	var records pushrow.Records
	recorded, err := pushrow.Get(n.state, seq, pushrow.RecordsPart, &records)
	if err != nil {
		return out, false, err
	}
	if recorded {
		out.LayersCreated = &records.Created
	}
	var announce pushrow.Announce
	announced, err := pushrow.GetAnnounce(n.state, seq, &announce)
	if err != nil {
		return out, false, err
	}
	if announced {
		posted := announce.PostURI != "" && !announce.Before && !announce.Joined
		if out.PostCreated = &posted; posted {
			out.PostURI = announce.PostURI
		}
	}
	return out, out.StatsUpdated || recorded || announced, nil
}

// Pushes returns the newest pushes, newest first: all, or those of public
// repositories. Reading public ones takes no longer if there are private ones in
// between. Pushes that were given up before they were counted are known from their
// dead letters.
func (n *Notifier) Pushes(limit int, all bool) ([]stats.Push, error) {
	seqs, err := n.newestPushes(limit, all)
	if err != nil {
		return nil, fmt.Errorf("read pushes: %w", err)
	}
	var pushes []stats.Push
	for _, seq := range seqs {
		if len(pushes) == limit {
			break
		}
		p, ok, err := n.push(seq)
		if err != nil {
			return nil, err
		}
		if ok && (all || n.public(p.Repository)) {
			pushes = append(pushes, p)
		}
	}
	return pushes, nil
}

// newestPushes returns the sequence numbers of the newest pushes, newest first: all,
// or those that are public. There are at least limit, unless there are fewer pushes;
// the rows of some may have been deleted.
func (n *Notifier) newestPushes(limit int, all bool) (seqs []uint64, err error) {
	uncounted, err := n.dead.Uncounted(limit, all)
	if err != nil {
		return nil, err
	}
	if all {
		seqs, err = n.newestRows(limit)
	} else {
		seqs = n.publicRows.Newest(limit)
	}
	// A push that was being counted when the journal dropped it is in both lists.
	seqs = append(seqs, uncounted...)
	slices.SortFunc(seqs, func(a, b uint64) int { return cmp.Compare(b, a) })
	return slices.Compact(seqs), err
}

// newestRows returns the sequence numbers of the newest push rows.
func (n *Notifier) newestRows(limit int) ([]uint64, error) {
	r := state.Prefix(state.Pushes)
	r.Reverse = true
	var seqs []uint64
	err := n.state.Scan(r, func(key, _ []byte) error {
		if len(seqs) >= limit {
			return state.ErrStop
		}
		if seq, part := pushrow.ParseKey(key); part == pushrow.PushPart {
			seqs = append(seqs, seq)
		}
		return nil
	})
	return seqs, err
}

// push reads a push from its rows, or from its dead letter if it was given up before
// it was counted; false if neither exists any more.
func (n *Notifier) push(seq uint64) (stats.Push, bool, error) {
	var row pushrow.Push
	counted, err := pushrow.Get(n.state, seq, pushrow.PushPart, &row)
	if err != nil {
		return stats.Push{}, false, err
	}
	if counted {
		p := row.Push()
		return p, true, n.complete(seq, &p)
	}
	letter, ok, err := n.dead.Find(pushesOf(sink.Counters), seq)
	if err != nil || !ok || letter.Operation != event.OpPush {
		return stats.Push{}, false, err
	}
	return failedPush(letter), true, nil
}

// failedPush is the API's form of a push that has nothing but a dead letter.
func failedPush(l deadletters.Letter) stats.Push {
	p := stats.Push{
		Time: l.Happened, Repository: l.Repository, Digest: l.Digest,
		Tags: []string{}, Platforms: []string{}, State: stateFailed, Reason: l.Sink + ": " + l.Reason,
	}
	if l.Tag != "" {
		p.Tags = []string{l.Tag}
	}
	return p
}

// complete fills in what the sinks did, and why not more.
func (n *Notifier) complete(seq uint64, p *stats.Push) error {
	result, _, err := n.result(seq)
	if err != nil {
		return err
	}
	var announce pushrow.Announce
	if _, err := pushrow.GetAnnounce(n.state, seq, &announce); err != nil {
		return err
	}
	p.LayersRecorded, p.PostURI = result.LayersCreated, announce.PostURI
	var d describe.Description
	described, err := pushrow.Get(n.state, seq, pushrow.DescriptionPart, &d)
	if err != nil {
		return err
	}
	if described {
		p.Size, p.Layers, p.Platforms = d.Size, d.Layers, d.Platforms
	}
	var report pushrow.Remote
	reported, err := pushrow.Get(n.state, seq, pushrow.RemotePart, &report)
	if err != nil {
		return err
	}
	if p.Remote = report.Answer; p.Remote != nil {
		p.LayersRecorded, p.PostURI = p.Remote.LayersCreated, p.Remote.PostURI
	}
	if !n.publishes(p.Repository) {
		p.State = stateCounted
		return nil
	}
	for _, s := range n.sinks {
		letter, failed, err := n.dead.Find(pushesOf(s.Name()), seq)
		if err != nil {
			return err
		}
		if failed {
			p.State, p.Reason = stateFailed, s.Name()+": "+letter.Reason
			return nil
		}
	}
	if n.remote != nil {
		p.State, p.Reason = n.reportState(seq, reported, result.LayersCreated != nil), report.Reason
		return nil
	}
	if result.LayersCreated == nil || n.announce != nil && (result.PostCreated == nil || announce.Waiting) {
		p.State = statePending
		if announce.Waiting {
			p.Reason = announce.Reason
		}
		return nil
	}
	p.State = stateDone
	var records pushrow.Records
	if _, err := pushrow.Get(n.state, seq, pushrow.RecordsPart, &records); err != nil {
		return err
	}
	p.Reason = cmp.Or(records.Reason, announce.Reason)
	return nil
}

// reportState is the state of a push that the remote sink reports. A push that was
// recorded before the sink was configured is published if it has records.
func (n *Notifier) reportState(seq uint64, reported, recorded bool) string {
	switch {
	case reported || recorded:
		return stateDone
	case seq <= n.journal.Cursor(journal.Pushes, remote.Name):
		return stateCounted
	}
	return statePending
}
