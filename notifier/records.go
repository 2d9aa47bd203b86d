package notifier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// recordSink writes one layer record for each layer of each manifest of a
// public repository, and deletes them with the manifest.
//
// An event says that a repository may have a manifest now, or not any more. What
// is done about it is decided by what storage has when the event is looked at,
// so pushes and deletes of one digest end right in whatever order they reached
// the journal: after each change of storage there is an event, and the last
// event is looked at after the last change.
//
// Each batch of events moves, in one transaction, the number of the last event
// that was gathered, and the outbox with the writes. An event at or below that
// number is never gathered again. When the writes are made, the ledger changes
// and the outbox is emptied in a second one.
type recordSink struct{ n *Notifier }

func (s *recordSink) name() string { return recordsName }

const recordsName = "records"

// gatheredKey holds the number of the last event that the records sink has
// gathered.
var gatheredKey = []byte("b/gathered")

// A recordBatch is on its way to the repository: what some events ask for.
type recordBatch struct {
	Manifests []recordChange `json:"manifests"`
}

// A recordChange is what events do to the records of one manifest.
type recordChange struct {
	Owner  string        `json:"owner"`
	Digest string        `json:"digest"`
	Events []recordEvent `json:"events,omitempty"`
	Before *ledger.Entry `json:"before,omitempty"` // nil: there was none
	After  *ledger.Entry `json:"after,omitempty"`  // nil: there will be none
	Writes []repo.Write  `json:"writes,omitempty"`
	Odd    *oddLayers    `json:"odd,omitempty"` // of what Writes creates
}

// A recordEvent is an event that asks for a change.
type recordEvent struct {
	Seq        uint64 `json:"seq"`
	Push       bool   `json:"push,omitempty"`
	Repository string `json:"repository"` // as Event.Name gives it
	Local      bool   `json:"local,omitempty"`
}

func (c *recordChange) creates() bool { return len(c.Writes) > 0 && c.Writes[0].Action == repo.Create }

func (b *recordBatch) writes() []repo.Write {
	var all []repo.Write
	for _, m := range b.Manifests {
		all = append(all, m.Writes...)
	}
	return all
}

// at finds the change that the i-th write belongs to.
func (b *recordBatch) at(i int) int {
	for m := range b.Manifests {
		if i < len(b.Manifests[m].Writes) {
			return m
		}
		i -= len(b.Manifests[m].Writes)
	}
	return -1
}

func (s *recordSink) outbox() *outbox { return &outbox{s.n, []byte("b/records")} }

// resume settles what an earlier process, or a failed call, left on its way.
func (s *recordSink) resume(ctx context.Context) error {
	var b recordBatch
	ok, err := s.outbox().load(&b)
	if err != nil || !ok {
		return err
	}
	changed, err := s.recheck(ctx, &b)
	if err != nil {
		return err
	}
	if changed {
		if err := s.outbox().put(&state.Batch{}, &b); err != nil {
			return err
		}
	}
	return s.send(ctx, &b, false)
}

func (s *recordSink) handle(ctx context.Context, events []sequenced) (int, time.Time, error) {
	if err := s.resume(ctx); err != nil {
		return 0, time.Time{}, err
	}
	gathered, err := s.n.gathered()
	if err != nil {
		return 0, time.Time{}, err
	}
	done := 0
	for done < len(events) && events[done].seq <= gathered {
		done++
	}
	if done == len(events) {
		return done, time.Time{}, nil
	}
	there, err := s.n.present(ctx, events[done:], s.touches)
	if err != nil {
		return done, time.Time{}, err
	}
	for len(there) > 0 {
		n, err := s.batch(ctx, events[done:], there)
		if err != nil {
			return done, time.Time{}, err
		}
		done, there = done+n, there[n:]
		s.n.results.ring()
	}
	return done, time.Time{}, nil
}

// batch does what the first of the events ask for, as many as fit into one call.
// there says, for as many events as are known, whether their manifest is there.
func (s *recordSink) batch(ctx context.Context, events []sequenced, there []bool) (int, error) {
	g, done, err := s.gather(events, there)
	if err != nil {
		return 0, err
	}
	batch := &state.Batch{}
	if err := s.note(batch, g, events[:done]); err != nil {
		return 0, err
	}
	if len(g.batch.Manifests) == 0 {
		return done, s.n.State.Commit(batch, state.Sync)
	}
	if err := s.outbox().put(batch, g.batch); err != nil {
		return 0, err
	}
	return done, s.send(ctx, g.batch, true)
}

// gathered is the number of the last event that the records sink has gathered.
func (n *Notifier) gathered() (uint64, error) {
	val, err := n.State.Get(gatheredKey)
	if errors.Is(err, state.ErrNotFound) {
		return 0, nil
	}
	if err == nil && len(val) != 8 {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return 0, fmt.Errorf("read the number of the last event: %w", err)
	}
	return binary.BigEndian.Uint64(val), nil
}

func putGathered(b *state.Batch, seq uint64) {
	b.Set(gatheredKey, binary.BigEndian.AppendUint64(nil, seq))
}

// note adds to the batch what is known already: how far events are gathered,
// and that some pushes make no records.
func (s *recordSink) note(batch *state.Batch, g *gathering, events []sequenced) error {
	if len(events) == 0 {
		return nil
	}
	changed := map[uint64]bool{}
	for _, m := range g.batch.Manifests {
		for _, e := range m.Events {
			changed[e.Seq] = true
		}
	}
	for _, e := range events {
		if e.Operation != opPush || changed[e.seq] {
			continue
		}
		if err := putResult(batch, e.seq, recordsResult{Reason: g.reasons[e.seq]}); err != nil {
			return err
		}
	}
	putGathered(batch, events[len(events)-1].seq)
	return nil
}

// skip notes that an event was given up.
func (s *recordSink) skip(seq uint64) error {
	batch := &state.Batch{}
	putGathered(batch, seq)
	return s.n.State.Commit(batch, state.Sync)
}

// touches reports whether the event may change the records of its manifest. A
// push must be public, or private, for what is out must then go. A delete touches anywhere, for what is out must go with
// its manifest also when its repository is not public any more.
func (s *recordSink) touches(e *Event) bool {
	switch e.Operation {
	case opPush:
		if e.private() {
			return true
		}
		return e.UserDID != "" && s.n.Public(e.Name()) && (e.unreadable != nil || len(plan(e).Records) > 0)
	case opDelete, opForget:
		return e.ManifestDigest != ""
	}
	return false
}

// odd is why a push of a public repository makes no records at all, nil if that
// is not because of its layers.
func (s *recordSink) odd(e *Event) *oddLayers {
	if e.Operation != opPush || !s.n.Public(e.Name()) {
		return nil
	}
	return plan(e).Odd
}

// A gathering is a batch in the making.
type gathering struct {
	s       *recordSink
	batch   *recordBatch
	changes map[string]int    // owner and digest to the index in batch
	reasons map[uint64]string // why an event makes no records, if one might expect some
	writes  int
}

// errNextBatch says that an event needs a batch of its own, behind this one.
var errNextBatch = errors.New("it goes into the next batch")

// gather takes as many events as fit into one call, and at least one.
func (s *recordSink) gather(events []sequenced, there []bool) (*gathering, int, error) {
	events = events[:len(there)]
	g := &gathering{s: s, batch: &recordBatch{}, changes: map[string]int{}, reasons: map[uint64]string{}}
	for i, e := range events {
		if !s.touches(e.Event) {
			if odd := s.odd(e.Event); odd != nil {
				g.reasons[e.seq] = odd.String()
				s.n.Metrics.odd(odd)
			}
			continue
		}
		var err error
		switch {
		case e.Operation == opForget:
			err = g.forget(e)
		case e.private():
			err = g.hide(e)
		case e.Operation == opPush && !there[i]:
			g.reasons[e.seq] = "not in storage any more"
		case e.Operation == opPush:
			err = g.push(e)
		case !there[i]:
			err = g.delete(e)
		}
		var permanent *permanentError
		switch {
		case err == errNextBatch:
			return g, i, nil
		case errors.As(err, &permanent):
			g.reasons[e.seq] = permanent.Error()
			err = s.n.letter(s.name(), e.seq, permanent)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return g, len(events), nil
}

// entry is a manifest's entry as it will be after the batch so far; nil: none.
func (g *gathering) entry(owner, digest string) (*ledger.Entry, error) {
	if i, ok := g.changes[owner+"\x00"+digest]; ok {
		return g.batch.Manifests[i].After, nil
	}
	e, ok, err := g.s.n.ledger.Get(owner, digest)
	if err != nil || !ok {
		return nil, err
	}
	return &e, nil
}

// owners are the owners under whom the manifest has an entry, before the batch
// or after it.
func (g *gathering) owners(digest string) ([]string, error) {
	entries, err := g.s.n.ledger.Owners(digest)
	if err != nil {
		return nil, err
	}
	for _, m := range g.batch.Manifests {
		if m.Digest == digest {
			entries[m.Owner] = ledger.Entry{}
		}
	}
	owners := make([]string, 0, len(entries))
	for owner := range entries {
		owners = append(owners, owner)
	}
	slices.Sort(owners)
	return owners, nil
}

// push adds the repository to the manifest's entry, and makes the entry with its
// records if there is none. Records under another owner, from before the
// option owner was changed, go.
func (g *gathering) push(e sequenced) error {
	if e.unreadable != nil {
		return &permanentError{e.unreadable}
	}
	name := e.Name()
	if e.Class == "" { // nobody has pushed it: it is in storage
		if private, err := g.s.n.hidden(name, e.ManifestDigest, e.seq); private || err != nil {
			return err
		}
	}
	if !e.Foreign {
		if err := g.leave(e, func(owner string) bool { return owner != e.UserDID }); err != nil {
			return err
		}
	}
	entry, err := g.entry(e.UserDID, e.ManifestDigest)
	if err != nil {
		return err
	}
	if entry != nil {
		after := entry.With(name)
		return g.add(e, e.UserDID, entry, &after, nil)
	}
	planned := plan(e.Event)
	layers := planned.Records
	if len(layers) > e.TIDs {
		return &permanentError{fmt.Errorf("the manifest lists %d layers and its push reserved keys for %d", len(layers), e.TIDs)}
	}
	after := ledger.Entry{First: e.TID, ClockID: e.ClockID, Records: len(layers)}.With(name)
	writes, err := recordWrites(e.UserDID, e.ManifestDigest, layers, after)
	if err != nil {
		return &permanentError{err}
	}
	if err := g.add(e, e.UserDID, nil, &after, writes); err != nil {
		return err
	}
	g.batch.Manifests[g.changes[e.UserDID+"\x00"+e.ManifestDigest]].Odd = planned.Odd
	return nil
}

// delete takes the repository out of the manifest's entries, also from before the
// option owner was changed. Without a repository it is about an entry of one
// owner that was found in none: see sweep.
func (g *gathering) delete(e sequenced) error {
	return g.leave(e, func(owner string) bool { return e.Repository != "" || owner == e.UserDID })
}

// hide takes the repository of a push that is private out of its owner's entry for
// the manifest. One that was rebuilt does not know its repositories.
func (g *gathering) hide(e sequenced) error {
	e.Event = e.revealed()
	entry, err := g.entry(e.UserDID, e.ManifestDigest)
	if err != nil || entry == nil {
		return err
	}
	after := entry.Without(e.Name()).Without(unknownRepository)
	switch len(after.Repositories) {
	case 0:
		return g.add(e, e.UserDID, entry, nil, recordDeletes(*entry))
	case len(entry.Repositories):
		return nil
	}
	return g.add(e, e.UserDID, entry, &after, nil)
}

// forget deletes a manifest's records of one owner, whichever repositories have
// it.
func (g *gathering) forget(e sequenced) error {
	entry, err := g.entry(e.UserDID, e.ManifestDigest)
	if err != nil || entry == nil {
		return err
	}
	return g.add(e, e.UserDID, entry, nil, recordDeletes(*entry))
}

// leave takes the event's repository out of the entries of its manifest whose
// owner is wanted. An entry that is in no repository then goes, with its records.
func (g *gathering) leave(e sequenced, wanted func(owner string) bool) error {
	owners, err := g.owners(e.ManifestDigest)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		if !wanted(owner) {
			continue
		}
		entry, err := g.entry(owner, e.ManifestDigest)
		if err != nil {
			return err
		}
		if entry == nil || !entry.In(e.Name()) {
			continue
		}
		after := entry.Without(e.Name())
		if len(after.Repositories) > 0 {
			err = g.add(e, owner, entry, &after, nil)
		} else {
			err = g.add(e, owner, entry, nil, recordDeletes(*entry))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add puts a change into the batch. A manifest has writes only once in it.
func (g *gathering) add(e sequenced, owner string, before, after *ledger.Entry, writes []repo.Write) error {
	by := recordEvent{Seq: e.seq, Push: e.Operation == opPush, Repository: e.Name(), Local: g.s.n.local(e.Event)}
	id := owner + "\x00" + e.ManifestDigest
	if i, ok := g.changes[id]; ok {
		c := &g.batch.Manifests[i]
		if len(writes) > 0 && len(c.Writes) > 0 {
			return errNextBatch
		}
		if len(writes) == 0 && c.After == nil {
			return errNextBatch
		}
		if len(writes) > 0 && g.writes > 0 && g.writes+len(writes) > maxWrites {
			return errNextBatch
		}
		c.Events, c.After = append(c.Events, by), after
		c.Writes = append(c.Writes, writes...)
		g.writes += len(writes)
		return nil
	}
	if len(g.batch.Manifests) > 0 && g.writes+len(writes) > maxWrites {
		return errNextBatch
	}
	g.writes += len(writes)
	g.changes[id] = len(g.batch.Manifests)
	g.batch.Manifests = append(g.batch.Manifests, recordChange{
		Owner: owner, Digest: e.ManifestDigest, Events: []recordEvent{by}, Before: before, After: after, Writes: writes,
	})
	return nil
}

// send makes the batch's writes and notes that they were made. A write that
// can never be made takes its manifest out of the batch, and the rest goes on.
func (s *recordSink) send(ctx context.Context, b *recordBatch, first bool) error {
	for {
		err := s.n.deliver(ctx, b.writes(), first)
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
		first = false
	}
}

// drop gives up the change that a *repo.WriteError points at. What was made of
// it in an earlier call is undone.
func (s *recordSink) drop(b *recordBatch, at *repo.WriteError) error {
	m := b.at(at.Index)
	if m < 0 {
		return at
	}
	c := &b.Manifests[m]
	batch := &state.Batch{}
	for _, e := range c.Events {
		if err := s.n.letter(s.name(), e.Seq, at); err != nil {
			return err
		}
		if err := putResult(batch, e.Seq, recordsResult{Reason: at.Error()}); err != nil {
			return err
		}
	}
	if err := s.withdraw(b, m); err != nil {
		return err
	}
	return s.outbox().put(batch, b)
}

// withdraw takes a change out of the batch. If a part of its creates is made,
// the change becomes their deletes.
func (s *recordSink) withdraw(b *recordBatch, m int) error {
	c := &b.Manifests[m]
	deletes, err := s.n.undo(c.Writes)
	if err != nil {
		return err
	}
	if len(deletes) == 0 {
		b.Manifests = slices.Delete(b.Manifests, m, m+1)
		return nil
	}
	c.Events, c.After, c.Writes = nil, c.Before, deletes
	return nil
}

// recheck looks again at the changes that would publish something and are not
// made: whether each of their pushes is still of a public repository that has
// the manifest. It reports whether the batch is another now.
func (s *recordSink) recheck(ctx context.Context, b *recordBatch) (changed bool, err error) {
	for m := len(b.Manifests) - 1; m >= 0; m-- {
		c := &b.Manifests[m]
		if !c.creates() || c.After == nil {
			continue
		}
		left, err := s.n.unmade(c.Writes)
		if errors.Is(err, errDifferent) {
			continue // send gives it up
		}
		if err != nil {
			return changed, err
		}
		if len(left) == 0 {
			continue
		}
		after, reason, err := s.still(ctx, c)
		if err != nil {
			return changed, err
		}
		if len(after.Repositories) == len(c.After.Repositories) {
			continue
		}
		changed = true
		if len(after.Repositories) > 0 {
			c.After = &after
			continue
		}
		batch := &state.Batch{}
		for _, e := range c.Events {
			if err := putResult(batch, e.Seq, recordsResult{Reason: reason}); err != nil {
				return changed, err
			}
		}
		if err := s.n.State.Commit(batch, state.NoSync); err != nil {
			return changed, err
		}
		s.n.log.Info("records are not written: "+reason, "digest", c.Digest, "events", len(c.Events))
		if err := s.withdraw(b, m); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// still is the change's entry with those of its repositories that are public
// and have the manifest, and why others do not count.
func (s *recordSink) still(ctx context.Context, c *recordChange) (after ledger.Entry, reason string, err error) {
	after = *c.After
	for _, e := range c.Events {
		if !e.Push || !after.In(e.Repository) {
			continue
		}
		private, err := s.n.hidden(e.Repository, c.Digest, e.Seq)
		if err != nil {
			return after, reason, err
		}
		if private || !s.n.Public(e.Repository) {
			after, reason = after.Without(e.Repository), "not public any more"
			continue
		}
		if !e.Local || s.n.Storage == nil {
			continue
		}
		has, err := s.n.Storage.Has(ctx, e.Repository, c.Digest)
		if err != nil && !errors.Is(err, errUnreadable) {
			return after, reason, err
		}
		if err == nil && !has {
			after, reason = after.Without(e.Repository), "not in storage any more"
		}
	}
	return after, reason, nil
}

// finish notes that the batch is made: the ledger's entries, and for the first
// push of each manifest how many records it made.
func (s *recordSink) finish(b *recordBatch) error {
	batch := &state.Batch{}
	for _, c := range b.Manifests {
		if c.After == nil {
			s.n.ledger.Delete(batch, c.Owner, c.Digest)
		} else {
			s.n.ledger.Put(batch, c.Owner, c.Digest, *c.After)
		}
		var result recordsResult
		if c.creates() && len(c.Events) > 0 {
			result.Created = len(c.Writes)
			if c.Odd != nil {
				result.Reason = c.Odd.String()
				s.n.Metrics.odd(c.Odd)
			}
		}
		for _, e := range c.Events {
			if !e.Push {
				continue
			}
			if err := putResult(batch, e.Seq, result); err != nil {
				return err
			}
			result.Created = 0
		}
	}
	return s.outbox().clear(batch)
}

// letter notes that a sink gives an event up, with the event if the journal has
// it still.
func (n *Notifier) letter(sink string, seq uint64, reason error) error {
	var payload []byte
	if entries, err := n.Journal.Read(journal.Pushes, seq-1, 1, 1); err == nil && len(entries) > 0 && entries[0].Seq == seq {
		payload = entries[0].Payload
	}
	if err := n.DeadLetters.add(sink, seq, seq, reason.Error(), payload); err != nil {
		return err
	}
	n.Metrics.dead(sink, 1)
	n.log.Error("an event is given up", "sink", sink, "event", seq, "reason", reason)
	return nil
}
