package notifier

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/ledger"
)

// recordSink writes one layer record for each layer of each manifest of a
// public repository, and deletes them with the manifest.
type recordSink struct{ n *Notifier }

func (s *recordSink) name() string { return "records" }

// A recordBatch is on its way to the repository: what some manifests' pushes
// and deletes ask for.
type recordBatch struct {
	Manifests []recordChange `json:"manifests"`
}

// A recordChange is what one event does to the records of its manifest.
type recordChange struct {
	Seq    uint64       `json:"seq"`
	Owner  string       `json:"owner"`
	Digest string       `json:"digest"`
	Before ledger.Entry `json:"before"`
	After  ledger.Entry `json:"after"`
	Writes []repo.Write `json:"writes"`
}

func (b *recordBatch) writes() []repo.Write {
	var all []repo.Write
	for _, m := range b.Manifests {
		all = append(all, m.Writes...)
	}
	return all
}

// at finds the change that the i-th write belongs to, and the write in it.
func (b *recordBatch) at(i int) (m, w int) {
	for m = range b.Manifests {
		if i < len(b.Manifests[m].Writes) {
			return m, i
		}
		i -= len(b.Manifests[m].Writes)
	}
	return -1, -1
}

func (s *recordSink) outbox() *outbox { return &outbox{s.n, []byte("b/records")} }

func (s *recordSink) resume(ctx context.Context) error {
	var b recordBatch
	ok, err := s.outbox().load(&b)
	if err != nil || !ok {
		return err
	}
	return s.send(ctx, &b)
}

func (s *recordSink) handle(ctx context.Context, events []sequenced) (int, time.Time, error) {
	if err := s.resume(ctx); err != nil {
		return 0, time.Time{}, err
	}
	b, done, err := s.gather(events)
	if err != nil {
		return 0, time.Time{}, err
	}
	if len(b.Manifests) == 0 {
		return done, time.Time{}, s.note(events[:done])
	}
	batch := s.n.State.NewBatch()
	for _, m := range b.Manifests {
		// The claim is durable with the batch it belongs to.
		if err := s.n.ledger.Put(batch, m.Owner, m.Digest, m.After); err != nil {
			return 0, time.Time{}, err
		}
	}
	if err := s.outbox().put(batch, b); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.send(ctx, b); err != nil {
		return 0, time.Time{}, err
	}
	return done, time.Time{}, s.note(events[:done])
}

// gather takes as many events as fit into one call, and at least one. A
// manifest that is to be deleted after it was written in the same batch waits
// for the next.
func (s *recordSink) gather(events []sequenced) (*recordBatch, int, error) {
	b := &recordBatch{}
	entries := map[string]ledger.Entry{}
	writes := 0
	for i, e := range events {
		if !s.touches(e.Event) {
			continue
		}
		id := e.UserDID + "\x00" + e.ManifestDigest
		entry, inBatch := entries[id]
		if !inBatch {
			var err error
			if entry, err = s.n.ledger.Get(e.UserDID, e.ManifestDigest); err != nil {
				return nil, 0, err
			}
		}
		change := recordChange{Seq: e.seq, Owner: e.UserDID, Digest: e.ManifestDigest, Before: entry}
		switch e.Operation {
		case opPush:
			layers := plan(e.Event).Records
			next, write := entry.Push(ledger.Push{Repository: e.Repository, First: e.TID, ClockID: e.ClockID, Records: len(layers)})
			change.After = next
			if write && !(inBatch && entry.State == ledger.Claimed) {
				var err error
				if change.Writes, err = recordWrites(e.UserDID, e.ManifestDigest, layers, next); err != nil {
					if i > 0 {
						return b, i, nil // what comes before it goes first
					}
					return nil, 0, &permanentError{err}
				}
			}
		case opDelete:
			next, remove := entry.Delete(e.Repository, e.TID)
			change.After = next
			if remove {
				if inBatch {
					return b, i, nil
				}
				change.Writes = recordDeletes(entry)
			}
		}
		if len(b.Manifests) > 0 && writes+len(change.Writes) > maxWrites {
			return b, i, nil
		}
		writes += len(change.Writes)
		entries[id] = change.After
		b.Manifests = append(b.Manifests, change)
	}
	return b, len(events), nil
}

// touches reports whether an event may change records: a push to a public
// repository, or a delete anywhere, for what is out must go with its manifest
// also when its repository is not public any more.
func (s *recordSink) touches(e *Event) bool {
	switch e.Operation {
	case opPush:
		return e.UserDID != "" && s.n.Public(e.Name()) && len(plan(e).Records) > 0
	case opDelete:
		return e.UserDID != "" && e.ManifestDigest != ""
	}
	return false
}

// send makes the batch's writes and notes that they were made. A write that
// can never be made takes its manifest out of the batch, and the rest goes on.
func (s *recordSink) send(ctx context.Context, b *recordBatch) error {
	for {
		err := s.n.deliver(ctx, b.writes())
		var at *repo.WriteError
		if !errors.As(err, &at) {
			if err != nil {
				return err
			}
			return s.finish(b)
		}
		if err := s.drop(b, at); err != nil {
			return err
		}
	}
}

// drop takes out what a *repo.WriteError points at: a record that is gone
// already need not be deleted; anything else gives its manifest up.
func (s *recordSink) drop(b *recordBatch, at *repo.WriteError) error {
	m, w := b.at(at.Index)
	if m < 0 {
		return at
	}
	change := &b.Manifests[m]
	batch := s.n.State.NewBatch()
	if change.Writes[w].Action == repo.Delete && errors.Is(at, repo.ErrNotFound) {
		change.Writes = append(change.Writes[:w], change.Writes[w+1:]...)
		return s.outbox().put(batch, b)
	}
	if err := s.n.DeadLetters.add(s.name(), change.Seq, change.Seq, at.Error(), nil); err != nil {
		return err
	}
	s.n.Metrics.dead(s.name(), 1)
	s.n.log.Error("an event is given up", "sink", s.name(), "event", change.Seq, "reason", at)
	if err := s.n.ledger.Put(batch, change.Owner, change.Digest, change.Before); err != nil {
		return err
	}
	b.Manifests = append(b.Manifests[:m], b.Manifests[m+1:]...)
	return s.outbox().put(batch, b)
}

func (s *recordSink) finish(b *recordBatch) error {
	batch := s.n.State.NewBatch()
	for _, m := range b.Manifests {
		if err := s.n.ledger.Put(batch, m.Owner, m.Digest, m.After.Settle()); err != nil {
			return err
		}
		created := 0
		for _, w := range m.Writes {
			if w.Action == repo.Create {
				created++
			}
		}
		if created == 0 {
			// A push that is met again, after its batch was sent and before the
			// cursor moved, keeps what it was noted to have made.
			noted, err := s.n.getResult(m.Seq, 'r', &recordsResult{})
			if err != nil {
				return err
			}
			if noted {
				continue
			}
		}
		if err := putResult(batch, m.Seq, recordsResult{Created: created}); err != nil {
			return err
		}
	}
	return s.outbox().clear(batch)
}

// note leaves a result for the pushes that asked for no records.
func (s *recordSink) note(events []sequenced) error {
	batch := s.n.State.NewBatch()
	for _, e := range events {
		if e.Operation != opPush || s.touches(e.Event) {
			continue
		}
		if err := putResult(batch, e.seq, recordsResult{}); err != nil {
			return err
		}
	}
	return s.n.State.Commit(batch, pebble.NoSync)
}
