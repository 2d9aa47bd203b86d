package counter

import (
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// Registries that share their storage each count the same tags, and only one of them
// observes a delete. It notifies the others through the stream, so that each can drop
// its own numbers of the tag later (prune.go); likewise of a push of a tag that they
// may have as deleted.
//
// A change is kept in memory from the fold until a round sends it, and at most
// maxTagChanges are. A crash before that, and a stream that was cut or lost, lose
// changes. After a lost delete the other registries keep their numbers of the tag. A
// lost "exists again" drops nothing, since prune asks storage first.
//
// Entries are read again after a restart. A change has the day of its entry, so
// applying it twice gives the same row. Whether a delete or a push came last is
// decided by the order of the stream.

// tagChange says that a tag was deleted, or that it exists again.
type tagChange struct {
	repository, tag string
	deleted         bool
}

const (
	maxTagChanges  = 4096 // kept while Redis is unavailable
	changesInEntry = 256
)

// String is the change's line in an entry of the stream: + or -, the repository, a
// zero byte, the tag.
func (t tagChange) String() string {
	sign := "+"
	if t.deleted {
		sign = "-"
	}
	return sign + t.repository + "\x00" + t.tag
}

func parseTagChange(line string) (t tagChange, ok bool) {
	sign, rest := line[:min(1, len(line))], line[min(1, len(line)):]
	t.deleted = sign == "-"
	t.repository, t.tag, ok = strings.Cut(rest, "\x00")
	return t, ok && t.repository != "" && t.tag != "" && (t.deleted || sign == "+")
}

func (r *round) sendTagChanges() error {
	c := r.c
	c.mu.Lock()
	changes := c.tagChanges
	c.tagChanges = nil
	c.mu.Unlock()
	for len(changes) > 0 {
		n := min(len(changes), changesInEntry)
		lines := make([]string, n)
		for i, one := range changes[:n] {
			lines[i] = one.String()
		}
		if err := r.addEntry("tags", strings.Join(lines, "\n")); err != nil {
			c.mu.Lock()
			c.tagChanges = append(changes, c.tagChanges...)
			c.tagChanges = c.tagChanges[:min(len(c.tagChanges), maxTagChanges)]
			c.mu.Unlock()
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// applyTagChanges sets the state of the tags that this folder has numbers of.
func (c *Counter) applyTagChanges(lines, entry string) error {
	millis, _, _ := strings.Cut(entry, "-")
	at, err := strconv.ParseInt(millis, 10, 64)
	if err != nil {
		at = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	today := counts.DayOf(c.cfg.Now())
	day := at / dayMillis
	if day <= 0 || day > today {
		day = today
	}
	w := &writer{id: c.reg.id(), epoch: c.reg.epoch(), current: true}
	b := c.db.NewIndexedBatch()
	for line := range strings.SplitSeq(lines, "\n") {
		change, ok := parseTagChange(line)
		if !ok {
			continue
		}
		it, err := c.load(b, counts.OfTag(change.repository, change.tag), w)
		if err != nil {
			return err
		}
		if !it.sum.Counted() || change.deleted == (it.sum.TagState.Deleted()) {
			continue
		}
		key := pendingKey(it.id, liveRun+c.run)
		pending, _, err := readRow(b, key)
		if err != nil {
			return err
		}
		if pending.TagState = counts.Present; change.deleted {
			pending.TagState = counts.DeletedOn(day)
			if err := deletePush(b, change.repository, change.tag, nil); err != nil {
				return err
			}
		}
		if err := b.Set(key, pending.Encode(), nil); err != nil {
			return err
		}
	}
	return c.db.Commit(b, pebble.NoSync)
}
