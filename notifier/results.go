package notifier

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// Each push has a row in the notifier's store and, next to it, what each sink
// made of it. The sinks write theirs in any order; a reader joins them.
//
//	p/<event number, big endian>/e   the push (by the counters, when it is counted)
//	p/<event number, big endian>/r   recordsResult
//	p/<event number, big endian>/a   announceResult
//	p/<event number, big endian>/d   description (once storage was asked)

// keptPushes is how many pushes the rows remember, and a little more, for they
// are pruned now and then.
const (
	keptPushes = 10_000
	pruneEvery = 1_000
)

// recordsResult is what the records sink did for a push.
type recordsResult struct {
	Created int    `json:"created"`          // layer records
	Reason  string `json:"reason,omitempty"` // why there are none, or fewer than layers, if more might have been expected
}

// announceResult is what the announce sink did for a push.
type announceResult struct {
	PostURI string `json:"postUri,omitempty"` // at://…; also of the post that the push's tag was joined to
	Before  bool   `json:"before,omitempty"`  // the post was made for an earlier push of the digest
	Reason  string `json:"reason,omitempty"`  // why there is none, if one might have been expected
}

const pushPrefix = "p/"

func rowKey(seq uint64, part byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(pushPrefix), seq), '/', part)
}

// rowOf reads a rowKey.
func rowOf(key string) (seq uint64, part byte) {
	return binary.BigEndian.Uint64([]byte(key[len(pushPrefix):])), key[len(key)-1]
}

func putResult(b *state.Batch, seq uint64, result any) error {
	part := byte('r')
	switch result.(type) {
	case announceResult:
		part = 'a'
	case *stats.Push:
		part = 'e'
	case description:
		part = 'd'
	}
	val, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("note a result: %w", err)
	}
	b.Set(rowKey(seq, part), val)
	return nil
}

func (n *Notifier) getResult(seq uint64, part byte, v any) (bool, error) {
	val, err := n.State.Get(rowKey(seq, part))
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read a result: %w", err)
	}
	if err := json.Unmarshal(val, v); err != nil {
		return false, fmt.Errorf("read a result: %w", err)
	}
	return true, nil
}

// prune forgets the rows before the newest keptPushes.
func prune(b *state.Batch, newest uint64) error {
	if newest <= keptPushes {
		return nil
	}
	b.DeleteRange(state.Range{From: rowKey(0, 0), To: rowKey(newest-keptPushes, 0)})
	return nil
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

// Pushes returns the newest pushes, newest first: all, or those of public
// repositories, which takes no longer if there are others between them. Pushes
// that were given up before they were counted are known from their dead letters.
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
		if ok && (all || n.Public(p.Repository)) {
			pushes = append(pushes, p)
		}
	}
	return pushes, nil
}

// newestPushes returns the numbers of at least as many pushes, if there are, the
// newest first: all, or those that are public. A few may be gone.
func (n *Notifier) newestPushes(limit int, all bool) (seqs []uint64, err error) {
	uncounted, err := n.DeadLetters.uncounted(limit, all)
	if err != nil {
		return nil, err
	}
	if all {
		seqs, err = n.newestRows(limit)
	} else {
		seqs = n.publicPushes.newest(limit)
	}
	// One that was in hand when the limit took it is in both.
	seqs = append(seqs, uncounted...)
	slices.SortFunc(seqs, func(a, b uint64) int { return cmp.Compare(b, a) })
	return slices.Compact(seqs), err
}

// newestRows returns the numbers of the newest rows.
func (n *Notifier) newestRows(limit int) ([]uint64, error) {
	r := state.Prefix(pushPrefix)
	r.Reverse = true
	var seqs []uint64
	err := n.State.Scan(r, func(key, _ []byte) error {
		if len(seqs) >= limit {
			return state.Stop
		}
		if seq, part := rowOf(string(key)); part == 'e' {
			seqs = append(seqs, seq)
		}
		return nil
	})
	return seqs, err
}

// push reads a push from its row, or from the letter of one that was given up
// before it was counted; false: it is gone.
func (n *Notifier) push(seq uint64) (p stats.Push, ok bool, err error) {
	if ok, err = n.getResult(seq, 'e', &p); err != nil {
		return p, false, err
	}
	if ok {
		return p, true, n.complete(seq, &p)
	}
	letter, ok, err := n.DeadLetters.Failed(counterSink, seq)
	if err != nil || !ok || letter.Operation != opPush {
		return p, false, err
	}
	return letter.push(), true, nil
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
	if err := n.addDescription(seq, p); err != nil {
		return err
	}
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
