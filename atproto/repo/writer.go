package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/atproto/repo/relaylimit"
	"github.com/tidings-dev/tidings/internal/store"
)

// The write protocol. One goroutine, run, owns the writer and everything that
// changes. Callers send it requests; it takes those that are pending at one moment
// and serves them as a group:
//
//  1. Each request, in order, adds its commit and events to one batch, on top of
//     the state that the one before it leads to. A refused request adds nothing.
//  2. The head of the last state completes the batch, which is committed with one
//     fsync.
//  3. Readers and subscribers get a snapshot that includes the batch. There is none
//     that includes a part of it.
//  4. The callers are answered, so they can read what they wrote. The refused ones
//     wait as well, since a refusal may depend on an earlier commit of the group.
//
// After a crash the database has the whole batch or nothing of it: records, tree,
// head, events and blob references agree. Callers that had no answer don't know
// which; they read back. If the commit of the batch fails, the writer returns to
// the state before the group, answers ErrUnknownOutcome, and the store refuses
// writes until a restart, since the disk may or may not have the batch.
//
// A request that fails after it began to change the tree in memory, which
// addCommit reports as an errTree, ends the group: the batch is still sound, but
// the tree is reloaded after the batch is durable. A request with work may read the
// database and leave the batch half changed, so it is alone in its group.

// Limits of a group.
const (
	groupCalls = 64
	groupBytes = 8 << 20
)

// cleanUpInterval is how often the writer deletes expired events and
// unreferenced blobs.
const cleanUpInterval = 10 * time.Minute

// request is a request of a caller to the writer.
type request struct {
	ctx     context.Context
	writes  []Write
	swap    *cid.Cid
	notices []Notice
	commit  bool                             // a commit as well as notices
	work    func(*writer, store.Batch) error // instead of all that
	answer  chan answer                      // buffered, so that the writer never blocks
}

type answer struct {
	result Result
	err    error
}

// writer is the state of the goroutine that writes. Between groups next is the
// state on disk, and tree is its tree or nil.
type writer struct {
	cfg     Config
	store   *store.Store
	commit  func(store.Batch, store.Durability) error
	clockID uint
	next    layout.State
	tree    *mst.Tree
	oldest  logPosition
	blobs   blobRefs
	files   layout.BlobFiles
	copying *sync.RWMutex  // of the repo; nil: it is stopped
	unused  []block.Digest // blobs whose files are still to be removed
	rate    *relaylimit.Rate
}

func newWriter(cfg Config, s *store.Store, head layout.State) (*writer, error) {
	w := &writer{
		cfg:     cfg,
		store:   s,
		commit:  s.Commit,
		clockID: uint(rand.UintN(1024)),
		next:    head,
		blobs:   blobRefs{db: s, pending: map[string][]byte{}},
		files:   layout.NewBlobFiles(cfg.FS, cfg.Dir),
		rate:    relaylimit.New(),
	}
	var err error
	w.oldest, err = oldestEvent(s, head)
	return w, err
}

// run is the goroutine that writes.
func (r *Repo) run(w *writer) {
	defer close(r.stopped)
	w.commit, w.copying = w.store.CommitInline, &r.copying
	cleanUp := time.NewTicker(cleanUpInterval)
	defer cleanUp.Stop()
	for {
		select {
		case q := <-r.requests:
			pending := r.gather(q)
			for len(pending) > 0 {
				pending = w.group(pending, r.publish)
			}
		case <-cleanUp.C:
			if err := w.cleanUp(r.publish); err != nil {
				r.cfg.Logger.Error("delete expired events and blobs", "error", err)
			}
		case <-r.closing:
			return
		}
	}
}

// gather takes the requests that are pending at this moment.
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

// group serves requests with one fsync and returns those that it didn't get to.
// publish shows the new state to readers.
func (w *writer) group(requests []request, publish func(layout.State) (release func())) (rest []request) {
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
		if q.work != nil && err != nil { // it may have changed a part of the batch
			b = w.store.NewBatch()
			w.next, w.tree = before, nil
			break
		}
		if errors.As(err, new(errTree)) {
			w.tree = nil
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
		defer publish(w.next)() // publishes now, and releases the old state after the answers
	}
	if w.tree != nil {
		w.tree.Shrink()
	}
	for i, q := range requests {
		q.answer <- answers[i]
	}
	return rest
}

// ready checks that the disk takes writes, and loads the tree if necessary.
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
	return w.loadTree()
}

func (w *writer) loadTree() (err error) {
	if w.next.Rev == "" {
		w.tree = mst.Empty(w.loadNode)
		return nil
	}
	if w.tree, err = mst.Load(w.next.Data, w.loadNode); err != nil {
		return fmt.Errorf("load tree: %w", damaged(err))
	}
	return nil
}

func (w *writer) loadNode(c cid.Cid) ([]byte, error) {
	data, err := store.Read(w.store, layout.NodeKey(block.DigestOf(c)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("node %s is missing: %w", c, layout.ErrDamaged)
	}
	return data, err
}

// damaged adds ErrDamaged to the error of an invalid node.
func damaged(err error) error {
	if errors.Is(err, mst.ErrHash) || errors.Is(err, mst.ErrNode) {
		return fmt.Errorf("%w: %w", err, layout.ErrDamaged)
	}
	return err
}

// serve adds the changes of a request to the batch.
func (w *writer) serve(b store.Batch, q request) (result Result, err error) {
	if q.work != nil {
		return Result{}, q.work(w, b)
	}
	if len(q.notices) == 0 || q.commit {
		if result, err = w.addCommit(b, q.writes, q.swap); err != nil {
			return Result{}, err
		}
		w.rate.Add(time.Now())
	}
	for _, n := range q.notices {
		if err := w.addNotice(b, n); err != nil {
			return Result{}, fmt.Errorf("%w: log %s: %w", ErrUnknownOutcome, n, err)
		}
		w.rate.Add(time.Now())
	}
	return result, nil
}

// finish adds the head to the batch and commits it. last is the sequence number
// of the last event before those of the batch.
func (w *writer) finish(b store.Batch, last uint64) error {
	b.Set(layout.KeyHead, w.next.Encode())
	oldest, err := w.trim(b, last)
	if err != nil {
		return err
	}
	w.oldest = oldest
	return w.commit(b, store.Sync)
}

// cleanUp deletes expired events, of which commits delete only some, and
// unreferenced blobs.
func (w *writer) cleanUp(publish func(layout.State) (release func())) error {
	if err := w.store.Failure(); err != nil {
		return err
	}
	b := w.store.NewBatch()
	oldest, err := w.trim(b, w.next.Seq)
	if err != nil {
		return err
	}
	blobs, err := w.collect(b)
	if err != nil {
		return err
	}
	if b.Empty() {
		w.removeBlobs(nil)
		return nil
	}
	if err := w.commit(b, store.Sync); err != nil {
		return err
	}
	w.oldest = oldest
	publish(w.next)()
	w.removeBlobs(blobs)
	return nil
}

// Apply makes one signed commit of the writes, in order, all or none, and
// returns once it is durable. Without writes the commit changes nothing. With
// swap, the head must be that commit.
//
// Errors: *WriteError, *SwapError, ErrTooLarge, ErrNoSpace, ErrStopped, ErrClock,
// ErrSuspended, ErrDeactivated, ErrClosed: nothing was applied. ErrUnknownOutcome:
// it may have been.
func (r *Repo) Apply(ctx context.Context, writes []Write, swap *cid.Cid) (Result, error) {
	if err := CheckWrites(writes); err != nil {
		return Result{}, err
	}
	return r.submit(request{ctx: ctx, writes: writes, swap: swap})
}

// submit sends a request to the writer, unless writes are refused.
func (r *Repo) submit(q request) (Result, error) {
	if err := r.Suspended(); err != nil {
		return Result{}, err
	}
	if err := r.deactivated(); err != nil && !q.repeatsMove() {
		return Result{}, err
	}
	return r.send(q)
}

// send sends a request to the writer and waits for its answer.
func (r *Repo) send(q request) (Result, error) {
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
	case <-r.store.Dead(): // the writer may be blocked forever
		return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, r.store.Failure())
	case <-q.ctx.Done():
		return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, q.ctx.Err())
	}
}
