package deadletters

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a letter is retried
//
//  1. BeginRetry marks the letter, durably, so that it is not retried twice at once.
//  2. The caller appends its event to the journal again, as a retry for the letter's sink.
//  3. When the sink has processed the retry, EndRetry removes the letter, before the sink's
//     cursor moves past the retry. If the sink gives it up again, Add removes the mark and
//     counts the attempt, and the letter stays.
//
// Crash cases:
//
//   - Between 1 and 2: the mark stays without a retry in the journal. The next start removes
//     it, and the letter can be retried.
//   - Between 2 and 3: the retry is pending.
//   - Before the cursor has moved: the sink reads the retry again and knows that it is done,
//     as for any event; EndRetry finds no letter.

var (
	// ErrNoEvent is returned for a letter without its event.
	ErrNoEvent = errors.New("the event of the dead letter is not kept; push the image again, or run `tidings backfill`")
	// ErrRetrying is returned for a letter that is being retried.
	ErrRetrying = errors.New("the dead letter is being retried")
)

// retryMark occurs in the encoding of a letter that is being retried, before the event.
const retryMark = `,"retrying":true`

// BeginRetry marks a letter as being retried and returns it with its event.
func (d *Store) BeginRetry(box Box, first uint64) (*Letter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, l, err := d.get(box, first)
	switch {
	case err != nil:
		return nil, err
	case l.Retrying:
		return nil, fmt.Errorf("%w: %s", ErrRetrying, box.Name(first))
	case l.Event == nil:
		return nil, fmt.Errorf("%s: %w", box.Name(first), ErrNoEvent)
	}
	l.Retrying = true
	return l, d.write(in, *l)
}

// CancelRetry removes the mark of a letter whose retry is not in the journal.
func (d *Store) CancelRetry(box Box, first uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cancelRetry(box, first)
}

// cancelRetry is CancelRetry. The caller must hold mu.
func (d *Store) cancelRetry(box Box, first uint64) error {
	in, l, err := d.get(box, first)
	if errors.Is(err, ErrNotFound) || err == nil && !l.Retrying {
		return nil
	}
	if err != nil {
		return err
	}
	l.Retrying = false
	return d.write(in, *l)
}

// EndRetry removes a letter whose retry was processed, unless it was given up again.
func (d *Store) EndRetry(box Box, first uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, l, err := d.get(box, first)
	if errors.Is(err, ErrNotFound) || err == nil && !l.Retrying {
		return nil
	}
	if err != nil {
		return err
	}
	return d.remove(in, first)
}

// EndRetryIn is EndRetry in the commit of b. The caller must call the function that it
// returns after the commit has succeeded.
func (d *Store) EndRetryIn(b *state.Batch, box Box, first uint64) (committed func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, l, err := d.get(box, first)
	if errors.Is(err, ErrNotFound) || err == nil && !l.Retrying {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	index, err := d.index(in)
	if err != nil {
		return nil, err
	}
	val, err := d.db.Get(in.key(first))
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	b.Delete(in.key(first))
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.forget(index, in, l, len(val))
	}, nil
}

// Retrying returns the letters that are being retried, without their events.
func (d *Store) Retrying() (marked []Letter, err error) {
	err = d.db.Scan(state.Prefix(state.DeadLetters), func(_, val []byte) error {
		head, _, _ := bytes.Cut(val, []byte(`,"event":`))
		if !bytes.Contains(head, []byte(retryMark)) {
			return nil
		}
		l, err := decodeLetter(withoutEvent(val))
		if err == nil && l.Retrying {
			marked = append(marked, *l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return marked, nil
}

// again completes a letter of an event that was given up before, from the earlier letter.
// The caller must hold mu.
func (d *Store) again(box Box, l *Letter) error {
	_, before, err := d.get(box, l.First)
	if errors.Is(err, ErrNotFound) {
		l.Attempts = 1
		return nil
	}
	if err != nil {
		return err
	}
	l.Attempts = before.Attempts // after a crash the sink repeats the call
	if before.Retrying {
		l.Attempts = max(1, before.Attempts) + 1
	}
	if l.Event == nil {
		l.Event = before.Event
	}
	if l.Operation == "" {
		l.Operation, l.Repository, l.Tag, l.Digest, l.Happened = before.Operation, before.Repository, before.Tag, before.Digest, before.Happened
	}
	return nil
}

// dropRetry handles an event that the journal drops if it is a retry: the letter can be
// retried again. The caller must hold mu.
func (d *Store) dropRetry(box Box, payload []byte) (bool, error) {
	r, _, ok := event.CutRetry(payload)
	if !ok || r.Sink != box.Sink {
		return ok, nil
	}
	return true, d.cancelRetry(box, r.Letter)
}
