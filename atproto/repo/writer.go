package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/internal/store"
)

// What may share one fsync.
const (
	groupCalls = 64
	groupBytes = 8 << 20
)

// tidyEvery is how often the writer looks for what is due to go.
const tidyEvery = 10 * time.Minute

// request is one Apply on its way.
type request struct {
	ctx     context.Context
	writes  []Write
	swap    *cid.Cid
	notices []Notice
	commit  bool                               // also with notices
	work    func(*writer, *pebble.Batch) error // instead of all that; it reads what is on disk, so its group is its own
	answer  chan answer                        // room for one, so that the writer never waits
}

type answer struct {
	result Result
	err    error
}

// writer is what the one goroutine that writes keeps. Between groups next is
// what is on disk and tree, unless nil, is its tree.
type writer struct {
	cfg     Config
	store   *store.Store
	commit  func(*pebble.Batch, *pebble.WriteOptions) error
	clockID uint
	next    state
	tree    *tree
	oldest  mark
	blobs   blobIndex
	files   blobFiles
	rate    *rate
}

func newWriter(cfg Config, s *store.Store, on state) (*writer, error) {
	w := &writer{cfg: cfg, store: s, commit: s.Commit, clockID: uint(rand.UintN(1024)), next: on, files: newBlobFiles(cfg), rate: newRate(relayLimits)}
	w.blobs = blobIndex{db: s, pending: map[string][]byte{}}
	var err error
	w.oldest, err = oldestEvent(s, on)
	return w, err
}

// group applies requests, each as its own commit, with one fsync for all. It
// returns the requests that it didn't get to. Nobody is answered before the
// fsync, since a refusal too may rest on a commit that isn't durable yet.
func (w *writer) group(requests []request, published func(state) func()) (rest []request) {
	if err := w.ready(); err != nil {
		for _, q := range requests {
			q.answer <- answer{err: err}
		}
		return nil
	}
	b := w.store.NewBatch() // closed by commit; after an error Pebble may still hold it
	before, oldest := w.next, w.oldest
	clear(w.blobs.pending)
	var answers []answer
	for i, q := range requests {
		if q.work != nil && i > 0 {
			break
		}
		result, err := w.serve(b, q)
		answers = append(answers, answer{result, err})
		if q.work != nil && err != nil { // and may have left it half done
			b = w.store.NewBatch()
			w.next, w.tree = before, nil
			break
		}
		if errors.As(err, new(errTree)) {
			w.tree = nil // and the next group loads what this one makes durable
			break
		}
		if q.work != nil || b.Len() > groupBytes {
			break
		}
	}
	requests, rest = requests[:len(answers)], requests[len(answers):]
	if !b.Empty() {
		if err := w.finish(b, before.Seq); err != nil {
			w.next, w.oldest, w.tree = before, oldest, nil
			for _, q := range requests {
				q.answer <- answer{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, err)}
			}
			return rest
		}
		defer published(w.next)() // after the answers
	}
	if w.tree != nil {
		w.tree.shrink()
	}
	for i, q := range requests {
		q.answer <- answers[i]
	}
	return rest
}

// ready makes sure that there is a disk to write to and a tree to change.
func (w *writer) ready() error {
	if err := w.store.Failure(); err != nil {
		return err
	}
	if err := w.store.Space(); err != nil {
		return err
	}
	if w.tree != nil {
		return nil
	}
	if w.next.Rev == "" {
		w.tree = emptyTree(w.loadNode)
		return nil
	}
	t, err := loadTree(w.next.Data, w.loadNode)
	if err != nil {
		return fmt.Errorf("load tree: %w", err)
	}
	w.tree = t
	return nil
}

func (w *writer) loadNode(c cid.Cid) ([]byte, error) {
	data, err := store.Read(w.store, nodeKey(c))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("node %s is missing: %w", c, errDamaged)
	}
	return data, err
}

// finish adds the head to the batch, whose events come after the event before,
// and makes it durable.
func (w *writer) finish(b *pebble.Batch, before uint64) error {
	b.Set(keyHead, w.next.encode(), nil)
	oldest, err := w.trim(b, before)
	if err != nil {
		return err
	}
	w.oldest = oldest
	return w.commit(b, pebble.Sync)
}

// tidy drops old events when nothing was written for long, and blobs that
// nothing refers to.
func (w *writer) tidy(published func(state) func()) error {
	if err := w.store.Failure(); err != nil {
		return err
	}
	b := w.store.NewBatch()
	oldest, err := w.trim(b, w.next.Seq)
	if err != nil {
		return err
	}
	dropped, err := w.collect(b)
	if err != nil || b.Empty() {
		return err
	}
	if err := w.commit(b, pebble.Sync); err != nil {
		return err
	}
	w.oldest = oldest
	published(w.next)()
	w.files.remove(w.store, dropped, w.cfg.Logger)
	return nil
}

// run is the one goroutine that writes.
func (r *Repo) run(w *writer) {
	defer close(r.stopped)
	w.commit = w.store.CommitHere
	often := time.NewTicker(tidyEvery)
	defer often.Stop()
	for {
		select {
		case q := <-r.requests:
			waiting := r.gather(q)
			for len(waiting) > 0 {
				waiting = w.group(waiting, r.publish)
			}
		case <-often.C:
			if err := w.tidy(r.publish); err != nil {
				r.cfg.Logger.Error("drop what is due", "error", err)
			}
		case done := <-r.tidying:
			done <- w.tidy(r.publish)
		case <-r.closing:
			return
		}
	}
}

// gather takes what waits at this moment.
func (r *Repo) gather(first request) []request {
	all := []request{first}
	for len(all) < groupCalls {
		select {
		case q := <-r.requests:
			all = append(all, q)
		default:
			return all
		}
	}
	return all
}

// Apply makes one signed commit of the writes, in order, all or none, and
// returns once it is durable. No writes make a commit that changes nothing.
// With swap, the head must be that commit.
//
// Errors: *WriteError, *SwapError, ErrTooLarge, ErrNoSpace, ErrClock,
// ErrSuspended, ErrDeactivated, ErrClosed: nothing was applied. ErrUnknownOutcome:
// it may have been.
func (r *Repo) Apply(ctx context.Context, writes []Write, swap *cid.Cid) (Result, error) {
	if err := checkWrites(writes); err != nil {
		return Result{}, err
	}
	return r.submit(request{ctx: ctx, writes: writes, swap: swap})
}

// submit hands a request to the writer, unless writes are refused.
func (r *Repo) submit(q request) (Result, error) {
	if err := r.Suspended(); err != nil {
		return Result{}, err
	}
	if err := r.elsewhere(); err != nil && !q.tells() {
		return Result{}, err
	}
	return r.hand(q)
}

// hand gives a request to the writer and waits for its answer.
func (r *Repo) hand(q request) (Result, error) {
	if err := r.store.Failure(); err != nil {
		return Result{}, err
	}
	q.answer = make(chan answer, 1)
	select {
	case r.requests <- q:
	case <-r.closing:
		return Result{}, ErrClosed
	case <-r.store.Dead():
		return Result{}, r.store.Failure()
	case <-q.ctx.Done():
		return Result{}, fmt.Errorf("wait to write: %w", q.ctx.Err())
	}
	select {
	case a := <-q.answer:
		return a.result, a.err
	case <-r.store.Dead(): // and with it, perhaps, the writer
		return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, r.store.Failure())
	case <-q.ctx.Done():
		return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, q.ctx.Err())
	}
}
