package notifier

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// Each push has a row in the notifier's store and, next to it, what each sink
// made of it. The sinks write theirs in any order; a reader joins them.
//
//	p/<event number, big endian>/e   the push (by the counters, when it is counted)
//	p/<event number, big endian>/r   recordsResult
//	p/<event number, big endian>/a   announceResult

// keptPushes is how many pushes the rows remember, and a little more, for they
// are pruned now and then.
const (
	keptPushes = 10_000
	pruneEvery = 1_000
)

// recordsResult is what the records sink did for a push.
type recordsResult struct {
	Created int    `json:"created"`          // layer records
	Reason  string `json:"reason,omitempty"` // why there are none, if some might have been expected
}

// announceResult is what the announce sink did for a push.
type announceResult struct {
	PostURI string `json:"postUri,omitempty"` // at://…; also of the post that the push's tag was joined to
	Before  bool   `json:"before,omitempty"`  // the post was made for an earlier push of the digest
	Reason  string `json:"reason,omitempty"`  // why there is none, if one might have been expected
}

func rowKey(seq uint64, part byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("p/"), seq), '/', part)
}

func putResult(b *pebble.Batch, seq uint64, result any) error {
	part := byte('r')
	switch result.(type) {
	case announceResult:
		part = 'a'
	case *stats.Push:
		part = 'e'
	}
	val, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("note a result: %w", err)
	}
	return b.Set(rowKey(seq, part), val, nil)
}

func (n *Notifier) getResult(seq uint64, part byte, v any) (bool, error) {
	val, closer, err := n.State.Get(rowKey(seq, part))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read a result: %w", err)
	}
	defer closer.Close()
	if err := json.Unmarshal(val, v); err != nil {
		return false, fmt.Errorf("read a result: %w", err)
	}
	return true, nil
}

// prune forgets the rows before the newest keptPushes.
func prune(b *pebble.Batch, newest uint64) error {
	if newest <= keptPushes {
		return nil
	}
	return b.DeleteRange(rowKey(0, 0), rowKey(newest-keptPushes, 0), nil)
}

// Result is what is known by now of a push: what the sinks did, in the words
// of io.atcr.hold.notifyManifest's output. False if the push is not known.
func (n *Notifier) Result(seq uint64) (lexicon.NotifyManifestOutput, bool, error) {
	out := lexicon.NotifyManifestOutput{Success: true, Operation: opPush}
	var row stats.Push
	var records recordsResult
	var announce announceResult
	var err error
	if out.StatsUpdated, err = n.getResult(seq, 'e', &row); err != nil {
		return out, false, err
	}
	recorded, err := n.getResult(seq, 'r', &records)
	if err != nil {
		return out, false, err
	}
	if recorded {
		out.LayersCreated = &records.Created
	}
	announced, err := n.getResult(seq, 'a', &announce)
	if err != nil {
		return out, false, err
	}
	if announced {
		posted := announce.PostURI != "" && !announce.Before
		if out.PostCreated = &posted; posted {
			out.PostURI = announce.PostURI
		}
	}
	return out, out.StatsUpdated || recorded || announced, nil
}

// Pushes returns the newest pushes of the repositories that visible allows,
// newest first. Those that were given up before they were counted are known from
// their dead letters.
func (n *Notifier) Pushes(limit int, visible func(repository string) bool) ([]stats.Push, error) {
	uncounted, err := n.DeadLetters.newest(counterSink, limit, func(l *DeadLetter) bool {
		return l.Operation == opPush && visible(l.Repository)
	})
	if err != nil {
		return nil, err
	}
	iter, err := n.State.NewIter(&pebble.IterOptions{LowerBound: []byte("p/"), UpperBound: []byte("p0")})
	if err != nil {
		return nil, fmt.Errorf("read pushes: %w", err)
	}
	defer iter.Close()
	var pushes []stats.Push
	// before adds what was given up after the event of a number.
	before := func(seq uint64) {
		for len(uncounted) > 0 && uncounted[0].First > seq && len(pushes) < limit {
			pushes = append(pushes, uncounted[0].push())
			uncounted = uncounted[1:]
		}
	}
	for ok := iter.Last(); ok && len(pushes) < limit; ok = iter.Prev() {
		key := iter.Key()
		if key[len(key)-1] != 'e' {
			continue
		}
		var p stats.Push
		if err := json.Unmarshal(iter.Value(), &p); err != nil {
			return nil, fmt.Errorf("read pushes: %w", err)
		}
		if !visible(p.Repository) {
			continue
		}
		seq := binary.BigEndian.Uint64(key[2:10])
		if before(seq); len(pushes) == limit {
			break
		}
		if len(uncounted) > 0 && uncounted[0].First == seq {
			uncounted = uncounted[1:] // it was in hand when the limit took it, and is counted
		}
		if err := n.complete(seq, &p); err != nil {
			return nil, err
		}
		pushes = append(pushes, p)
	}
	before(0)
	return pushes, iter.Error()
}

// States of a push in the API.
const (
	statePending = "pending" // a sink has still to do its part
	stateDone    = "done"
	stateCounted = "counted" // nothing of it is published
	stateFailed  = "failed"  // a sink has given its part up
)

// complete fills in what the sinks did, and why not more.
func (n *Notifier) complete(seq uint64, p *stats.Push) error {
	result, _, err := n.Result(seq)
	if err != nil {
		return err
	}
	var announce announceResult
	if _, err := n.getResult(seq, 'a', &announce); err != nil {
		return err
	}
	p.LayersRecorded, p.PostURI = result.LayersCreated, announce.PostURI
	if n.Publisher == nil || !n.Public(p.Repository) {
		p.State = stateCounted
		return nil
	}
	for _, s := range n.sinks {
		letter, failed, err := n.DeadLetters.Failed(s.name(), seq)
		if err != nil {
			return err
		}
		if failed {
			p.State, p.Reason = stateFailed, s.name()+": "+letter.Reason
			return nil
		}
	}
	if result.LayersCreated == nil || n.Announce != nil && result.PostCreated == nil {
		p.State = statePending
		return nil
	}
	p.State = stateDone
	var records recordsResult
	if _, err := n.getResult(seq, 'r', &records); err != nil {
		return err
	}
	p.Reason = cmp.Or(records.Reason, announce.Reason)
	return nil
}
