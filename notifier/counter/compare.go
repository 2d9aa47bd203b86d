package counter

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// A field that was changed or deleted in Redis by hand does not change the record. So each
// field is compared once within Config.CompareWithin, some rows in each round, and all of
// them in one round after Redis has lost something.
//
// The rows in the store are visited in the order of their keys. Those without pending counts
// are fetched from Redis and sent if they differ. At the end of a repository, the number of
// fields of each of its hashes is compared with the number of rows; if it differs, the names
// of the fields are read and those without a row are deleted. At the end of the comparison
// the same is done for the hashes of totals.
//
// The state of a comparison is kept in memory only. The first round of a process compares
// everything, and so does a round after the claim of an id whose record is not the one that
// was last acknowledged.

// firstRows is the number of rows compared in a round while the total is unknown.
const firstRows = 512

// comparison is the progress of comparing Redis with the store.
type comparison struct {
	all  bool      // compare to the end in one round
	from string    // key of the next row
	rows int       // compared so far
	last int       // rows in the last complete comparison
	at   time.Time // when rows were last compared

	open  *expected               // the repository that from is in
	names [rediscounts.Shards]int // number of repositories, by shard
}

// expected is the number of fields that a repository has to have in Redis.
type expected struct {
	repository string
	days       int
	tags       map[uint64]int // by hash
	positions  uint64
}

// compare continues the comparison with the rows that are due.
func (r *round) compare() error {
	c, s := r.c, &r.c.publisher.comparison
	now := c.cfg.Now()
	due := firstRows
	if s.last > 0 {
		due = int(2*float64(s.last)*float64(now.Sub(s.at))/float64(c.cfg.CompareWithin)) + 1
	}
	s.at = now
	w := r.currentWriter()
	rows, err := newRows(r.snap, w.epoch, true, s.from)
	if err != nil {
		return err
	}
	defer func() { rows.close() }()
	var batch []*item
	for n := 0; ; n++ {
		it, err := rows.next(now)
		if err != nil {
			return err
		}
		stop := it == nil || n >= due && !s.all
		if !stop {
			batch = append(batch, it)
		}
		if stop || len(batch) >= rediscounts.RowsInCall {
			if err := r.compareRows(w, batch, it == nil); err != nil {
				return err
			}
			batch = nil
		}
		if it == nil {
			err := r.compareTotals(w)
			*s = comparison{last: max(s.rows, 1), at: now}
			return err
		}
		if stop {
			return nil
		}
	}
}

// compareRows compares consecutive rows, and then the sizes of the hashes of the
// repositories that end with them.
func (r *round) compareRows(w *writer, batch []*item, end bool) error {
	s := &r.c.publisher.comparison
	var unchanged []*item
	for _, it := range batch {
		if len(it.parts) == 0 || r.report != nil { // the others were sent in this round
			unchanged = append(unchanged, it)
		}
	}
	if err := r.send(w, unchanged, true); err != nil {
		return err
	}
	var closed []*expected
	for _, it := range batch {
		if s.open == nil || s.open.repository != it.id.Repository {
			if s.open != nil {
				closed = append(closed, s.open)
			}
			s.open = &expected{repository: it.id.Repository, tags: map[uint64]int{}}
		}
		s.rows++
		s.from = rowKey(it.id) + "\x00"
		if !it.sum.Counted() {
			continue
		}
		switch it.id.Kind {
		case counts.PerRepository:
			s.names[rediscounts.ShardOf(it.id.Repository)]++
			s.open.positions = it.sum.Position
		case counts.PerDay:
			s.open.days++
		case counts.PerTag:
			if it.sum.Position > 0 {
				s.open.tags[rediscounts.HashOf(it.sum.Position)]++
				s.open.positions = max(s.open.positions, it.sum.Position)
			}
		}
	}
	if end && s.open != nil {
		closed, s.open = append(closed, s.open), nil
	}
	return r.compareRepositories(w, closed)
}

// hash is a hash in Redis.
type hash struct {
	key        string
	kind       counts.Kind
	repository string // of days and tags
	want       int    // expected number of fields
}

// row returns the row of a field.
func (h hash) row(field string) counts.ID {
	if h.kind == counts.PerRepository {
		return counts.OfRepository(field)
	}
	return counts.ID{Repository: h.repository, Kind: h.kind, Name: field}
}

// compareRepositories compares the sizes of the hashes of repositories.
func (r *round) compareRepositories(w *writer, closed []*expected) error {
	keys := r.c.redis.Keys
	var hashes []hash
	for _, e := range closed {
		hashes = append(hashes, hash{keys.Days(w.id, e.repository), counts.PerDay, e.repository, e.days})
		for n := uint64(0); n*rediscounts.TagsInHash < e.positions; n++ {
			hashes = append(hashes, hash{keys.Tags(w.id, e.repository, n), counts.PerTag, e.repository, e.tags[n]})
		}
	}
	return r.compareSizes(w, hashes)
}

// compareTotals compares the sizes of the hashes of totals.
func (r *round) compareTotals(w *writer) error {
	hashes := make([]hash, rediscounts.Shards)
	for i := range hashes {
		hashes[i] = hash{r.c.redis.Keys.Shard(w.id, i), counts.PerRepository, "", r.c.publisher.comparison.names[i]}
	}
	return r.compareSizes(w, hashes)
}

// compareSizes deletes unexpected fields from the hashes whose number of fields is not the
// expected one.
func (r *round) compareSizes(w *writer, hashes []hash) error {
	for chunk := range slices.Chunk(hashes, rediscounts.RowsInCall) {
		keys := make([]string, len(chunk))
		for i, h := range chunk {
			keys[i] = h.key
		}
		inRedis, err := r.lengths(keys)
		if err != nil {
			return err
		}
		for i, h := range chunk {
			if inRedis[i] < 0 || inRedis[i] == int64(h.want) {
				continue
			}
			if err := r.deleteUnexpected(w, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// lengths returns the number of fields of hashes, and -1 for a key of another type, which
// is reported.
func (r *round) lengths(keys []string) ([]int64, error) {
	lengths, err := r.c.redis.Lengths(r.ctx, keys)
	for i, n := range lengths {
		if n < 0 {
			r.damaged[keys[i]] = rediscounts.NotAHash(keys[i])
		}
	}
	return lengths, err
}

// deleteUnexpected deletes the fields of a hash that the store has no counts for.
func (r *round) deleteUnexpected(w *writer, h hash) error {
	names, err := r.c.redis.Names(r.ctx, h.key)
	if err != nil {
		return err
	}
	var changes []rediscounts.Change
	for _, name := range names {
		id := h.row(name)
		expected, err := r.isIn(w, id, h.key)
		if err != nil {
			return err
		}
		switch {
		case expected:
		case r.report != nil:
			detail := fmt.Sprintf("Redis has counts of %s, and this registry has none", id)
			if err := r.report(id.Repository, detail); err != nil {
				return err
			}
		default:
			changes = append(changes, rediscounts.Change{Field: rediscounts.Field{Key: h.key, Name: name}})
		}
	}
	for chunk := range slices.Chunk(changes, rediscounts.RowsInCall) {
		if err := r.call(w, chunk, nil); err != nil {
			return err
		}
	}
	return nil
}

// isIn reports whether a row has counts and belongs to the hash with a key.
func (r *round) isIn(w *writer, id counts.ID, key string) (bool, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	it, err := r.c.load(r.c.db, id, w)
	if err != nil {
		return false, err
	}
	return it.sum.Counted() && r.c.fieldOf(w.id, it).Key == key, nil
}
