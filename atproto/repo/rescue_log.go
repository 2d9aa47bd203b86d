package repo

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"
)

// events copies the event log from its last whole stretch on: frames that
// follow from one another, up to the head. What is before a damaged one is
// dropped, and said to be lost, since no subscriber may be led across a gap.
func (r *rescue) events(ctx context.Context) error {
	r.log = chain{verifier: r.verifier}
	lost, err := lastLost(r.from)
	if err != nil {
		lost = 0
	}
	r.gone, r.log.last = lost, lost
	cut := false
	err = eachEvent(ctx, r.from, func(rest, val []byte) error {
		if err := r.log.next(rest, val); err != nil {
			cut, r.gone = true, r.log.last
			return r.to.dropEvents()
		}
		return r.to.event(r.log.last, val[8:])
	})
	if err != nil {
		return err
	}
	if head := r.verifier.head; head.Rev != "" && (r.log.last != head.Seq || r.log.rev != "" && r.log.commit != head.Commit) {
		cut, r.gone = true, max(r.log.last, head.Seq)
		if err := r.to.dropEvents(); err != nil {
			return err
		}
	}
	if cut {
		r.say("the event log begins anew after %d", r.gone)
	}
	return nil
}

// eachEvent reads the log from the start. Where it can't be read, it goes on
// from the last stretch that can, and gives the chain a nil value there.
func eachEvent(ctx context.Context, db pebble.Reader, each func(rest, val []byte) error) error {
	it, err := eventIter(db, 0)
	if err != nil {
		return err
	}
	defer it.Close()
	var last []byte
	for ok := it.First(); ; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !ok {
			if it.Error() == nil {
				return nil
			}
			if ok = skipDamage(it, last); !ok {
				return nil
			}
			last = append(last[:0], it.Key()...)
			if err := each(it.Key()[len(prefixEvent):], nil); err != nil {
				return err
			}
			continue
		}
		last = append(last[:0], it.Key()...)
		val, err := it.ValueAndErr()
		if err != nil {
			val = nil
		}
		if err := each(it.Key()[len(prefixEvent):], val); err != nil {
			return err
		}
	}
}

// skipDamage goes to the first event of the last stretch that can be read, if
// that is after a key.
func skipDamage(it *pebble.Iterator, after []byte) bool {
	var first []byte
	for ok := it.Last(); ok && bytes.Compare(it.Key(), after) > 0; ok = it.Prev() {
		first = append(first[:0], it.Key()...)
	}
	return first != nil && it.SeekGE(first)
}
