package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// maxLost is how many lost records are looked for in the event log; with more
// of them, a backup is the better place.
const maxLost = 100_000

// rescue makes a repository anew from one that is damaged.
type rescue struct {
	cfg      RepairConfig
	from     *store.Store
	verifier *verifier
	done     *Repaired

	to    *rebuild
	lost  map[cid.Cid][]string // records that the tree has, and nothing that was read yet
	count int                  // of paths in lost
	blind bool                 // records that the tree might have can't be read
	log   chain                // of the old event log
	gone  uint64               // the last event that is not kept
}

func (r *rescue) run(ctx context.Context) (err error) {
	defer func() {
		if r.from != nil {
			err = errors.Join(err, r.from.Close())
		}
	}()
	if r.to, err = newRebuild(r.cfg.Config); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.to.abandon())
		}
	}()
	for _, step := range []func(context.Context) error{r.events, r.keepPlace, r.believe, r.records, r.search, r.idleBlobs, r.settle} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := r.from.Close(); err != nil {
		return err
	}
	r.from = nil
	if r.done.Aside, err = r.to.replace("before-repair"); err != nil {
		return err
	}
	r.say("the repository was made anew from what could be read")
	return nil
}

func (r *rescue) say(format string, args ...any) {
	r.done.Done = append(r.done.Done, fmt.Sprintf(format, args...))
}

// believe finds the head to go by: the stored one, or the last that the event
// log tells of.
func (r *rescue) believe(context.Context) error {
	head := &r.verifier.head
	if head.Rev != "" {
		return clockIsBehind(r.cfg, r.verifier)
	}
	val, err := store.Read(r.from, keyHead)
	if r.log.rev == "" {
		if err == nil && len(val) > 0 {
			return errOtherKey
		}
		head.DID, head.Seq = r.cfg.DID, max(r.log.last, r.gone)
		return nil
	}
	*head = state{
		Head:  Head{DID: r.cfg.DID, Rev: r.log.rev, Commit: r.log.commit, Data: r.log.data, Seq: r.log.last},
		block: r.log.signed,
	}
	r.say("the head was taken from the event log: %s", head.Rev)
	return clockIsBehind(r.cfg, r.verifier)
}

// records copies what belongs to the repository: what the tree has, and where
// nodes of it are lost, all that is stored.
func (r *rescue) records(ctx context.Context) error {
	r.lost = map[cid.Cid][]string{}
	dropped := 0
	m := beside{
		db: r.from,
		each: func(p pair) error {
			c, _, err := p.record()
			switch {
			case err == nil && (p.want == c || p.unsure && !p.want.Defined()):
				return r.to.set(recordKey(p.path), p.val)
			case p.want.Defined():
				return r.miss(p.path, p.want)
			case p.unsure:
				r.blind = true
			}
			dropped++
			return nil
		},
		lost:  func(cid.Cid, error) error { return nil },
		blind: func(string, error) error { r.blind = true; return nil },
	}
	if _, err := m.run(ctx, r.verifier.root()); err != nil {
		return err
	}
	if dropped > 0 {
		r.say("%d stored records were left out that are not in the tree or can't be read", dropped)
	}
	return nil
}

// miss is for a record whose path and CID are known. An equal record at another
// path has its bytes.
func (r *rescue) miss(path string, c cid.Cid) error {
	if val, ok := r.twin(c); ok {
		r.say("record %s was taken from another that is equal", path)
		return r.to.set(recordKey(path), val)
	}
	if r.count++; r.count > maxLost {
		return fmt.Errorf("more than %d records are damaged: restore a backup", maxLost)
	}
	r.lost[c] = append(r.lost[c], path)
	return nil
}

func (r *rescue) twin(c cid.Cid) ([]byte, bool) {
	if !ours(c) {
		return nil, false
	}
	prefix := indexKey(c, "")
	it, err := r.from.NewIter(&pebble.IterOptions{LowerBound: prefix})
	if err != nil {
		return nil, false
	}
	defer it.Close()
	for ok := it.First(); ok && len(it.Key()) > len(prefix) && string(it.Key()[:len(prefix)]) == string(prefix); ok = it.Next() {
		val, err := store.Read(r.from, recordKey(string(it.Key()[len(prefix):])))
		if err != nil {
			continue
		}
		if got, _, err := (pair{val: val}).record(); err == nil && got == c {
			return val, true
		}
	}
	return nil, false
}

// search looks for lost records in the commits that the event log keeps.
func (r *rescue) search(ctx context.Context) error {
	if len(r.lost) == 0 {
		return nil
	}
	found := 0
	log := chain{verifier: r.verifier, block: func(c cid.Cid, data []byte) error {
		for _, path := range r.lost[c] {
			found++
			if err := r.to.set(recordKey(path), append(digestOf(c), data...)); err != nil {
				return err
			}
		}
		delete(r.lost, c)
		return nil
	}}
	err := eachEvent(ctx, r.from, func(rest, val []byte) error {
		_ = log.next(rest, val) // what is wrong with it was told
		return nil
	})
	if err != nil {
		return err
	}
	if found > 0 {
		r.say("%d records were taken from the event log", found)
	}
	return nil
}

// settle builds the tree and what else follows from the records, and makes the
// head.
func (r *rescue) settle(ctx context.Context) error {
	head := r.verifier.head
	root, err := r.to.derive(ctx, r.usedSince, r.oldBlob)
	if err != nil {
		return err
	}
	paths, count := r.missing()
	why := ""
	switch {
	case count > 0:
		why = fmt.Sprintf("%d records are lost: the tree has them, and their bytes are nowhere", count)
	case head.Rev == "":
		why = "the head is lost, and the event log has none: nothing tells whether the records are all there"
	case root != head.Data:
		why = "the records make another tree than the one that was signed: where the tree is damaged, some are lost or others than they were"
	}
	if why != "" && !r.cfg.WithoutLost {
		return &LostError{Paths: paths, Count: count, Why: why}
	}
	r.done.Dropped = paths
	if why != "" {
		r.say("given up: %s", why)
	}
	fresh := root != head.Data || head.ahead(r.cfg.Now()) > maxAhead || r.verifier.older
	now, err := r.to.finish(head, root, fresh, r.gone)
	if err != nil {
		return err
	}
	if fresh {
		r.say("a fresh commit, %s, in place of %q", now.Rev, head.Rev)
	}
	r.done.Head = now.Head
	return nil
}

func (r *rescue) missing() (paths []string, count int) {
	for _, at := range r.lost {
		count += len(at)
		paths = append(paths, at...)
	}
	return paths[:min(len(paths), 1000)], count
}
