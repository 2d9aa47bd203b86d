package rediscounts

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/classify"
)

// Registries share what they know of indexes and tags through one stream. The fields of an
// entry are
//
//	from  run of the process that added it, which ignores its own entries
//	keys  keys of children (classify.ManifestKey), 8 bytes each
//	of    keys of their indexes, in the same order
//	gone  keys of deleted manifests
//	tags  changes of tags, one per line: + or -, the repository, a zero byte, the tag
//
// An entry has keys and of, or gone, or tags. Earlier versions only know from and keys. A
// process reads the stream from its beginning after each start, so applying an entry again
// must change nothing. The stream loses its oldest entries at its limit.
const (
	streamEntries  = 4096 // approximately, so that the stream stays under 10 MiB
	keysInEntry    = 256
	tagsInEntry    = 256
	entriesAtATime = 64
)

// StreamStart is the position before the first entry of the stream.
const StreamStart = "0"

// TagChange says that a tag was deleted, or that it exists again.
type TagChange struct {
	Repository, Tag string
	Deleted         bool
}

func (t TagChange) line() string {
	sign := "+"
	if t.Deleted {
		sign = "-"
	}
	return sign + t.Repository + "\x00" + t.Tag
}

func parseTagChange(line string) (t TagChange, ok bool) {
	sign, rest := line[:min(1, len(line))], line[min(1, len(line)):]
	t.Deleted = sign == "-"
	t.Repository, t.Tag, ok = strings.Cut(rest, "\x00")
	return t, ok && t.Repository != "" && t.Tag != "" && (t.Deleted || sign == "+")
}

// StreamEntry is an entry of another registry. It has either Tags or IndexEntries.
type StreamEntry struct {
	Time         time.Time // by the clock of Redis
	Tags         []TagChange
	IndexEntries []classify.IndexEntry
}

// SendIndexEntries adds index entries to the stream, as the process with the id run. It
// returns those that were not sent because of an error.
func (d *DB) SendIndexEntries(ctx context.Context, run string, all []classify.IndexEntry) ([]classify.IndexEntry, error) {
	for len(all) > 0 {
		n := 1
		for n < min(len(all), keysInEntry) && all[n].Deleted == all[0].Deleted {
			n++
		}
		var indexes, children []byte
		for _, l := range all[:n] {
			indexes = binary.BigEndian.AppendUint64(indexes, uint64(l.Index))
			children = binary.BigEndian.AppendUint64(children, uint64(l.Child))
		}
		fields := []any{"keys", children, "of", indexes}
		if all[0].Deleted {
			fields = []any{"gone", indexes}
		}
		if err := d.addEntry(ctx, run, fields...); err != nil {
			return all, err
		}
		all = all[n:]
	}
	return nil, nil
}

// SendTagChanges adds changes of tags to the stream, as the process with the id run. It
// returns those that were not sent because of an error.
func (d *DB) SendTagChanges(ctx context.Context, run string, changes []TagChange) ([]TagChange, error) {
	for len(changes) > 0 {
		n := min(len(changes), tagsInEntry)
		lines := make([]string, n)
		for i, one := range changes[:n] {
			lines[i] = one.line()
		}
		if err := d.addEntry(ctx, run, "tags", strings.Join(lines, "\n")); err != nil {
			return changes, err
		}
		changes = changes[n:]
	}
	return nil, nil
}

func (d *DB) addEntry(ctx context.Context, run string, fields ...any) error {
	return d.streamError(d.client.XAdd(ctx, d.streamArgs(run, fields...)).Err())
}

func (d *DB) streamArgs(run string, fields ...any) *redis.XAddArgs {
	return &redis.XAddArgs{
		Stream: d.Keys.Stream(), MaxLen: streamEntries, Approx: true, Values: append([]any{"from", run}, fields...),
	}
}

// Receive calls visit with the entries after a position, except those of the process with
// the id run, until visit returns an error. It returns the position of the last entry that
// was processed.
func (d *DB) Receive(ctx context.Context, run, after string, visit func(StreamEntry) error) (string, error) {
	for {
		streams, err := d.client.XRead(ctx, &redis.XReadArgs{
			Streams: []string{d.Keys.Stream(), after}, Count: entriesAtATime, Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) {
			return after, nil
		}
		if err != nil {
			return after, d.streamError(err)
		}
		n := 0
		for _, s := range streams {
			for _, m := range s.Messages {
				if m.Values["from"] != run {
					if err := visit(parseEntry(m)); err != nil {
						return after, err
					}
				}
				after = m.ID
				n++
			}
		}
		if n < entriesAtATime {
			return after, nil
		}
	}
}

func parseEntry(m redis.XMessage) StreamEntry {
	var e StreamEntry
	millis, _, _ := strings.Cut(m.ID, "-")
	if at, err := strconv.ParseInt(millis, 10, 64); err == nil {
		e.Time = time.UnixMilli(at)
	}
	if lines, ok := m.Values["tags"].(string); ok {
		for line := range strings.SplitSeq(lines, "\n") {
			if change, ok := parseTagChange(line); ok {
				e.Tags = append(e.Tags, change)
			}
		}
		return e
	}
	for _, index := range unpackKeys(m.Values["gone"]) {
		e.IndexEntries = append(e.IndexEntries, classify.IndexEntry{Index: index, Deleted: true})
	}
	indexes := unpackKeys(m.Values["of"])
	for i, child := range unpackKeys(m.Values["keys"]) {
		l := classify.IndexEntry{Child: child}
		if i < len(indexes) {
			l.Index = indexes[i]
		}
		e.IndexEntries = append(e.IndexEntries, l)
	}
	return e
}

// unpackKeys decodes the keys in a field of an entry.
func unpackKeys(field any) []classify.ManifestKey {
	packed, _ := field.(string)
	var keys []classify.ManifestKey
	for b := []byte(packed); len(b) >= 8 && len(keys) < keysInEntry; b = b[8:] {
		keys = append(keys, classify.ManifestKey(binary.BigEndian.Uint64(b)))
	}
	return keys
}

// streamError turns Redis' error about a key of another type into one that the
// operator can act on.
func (d *DB) streamError(err error) error {
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return &DamagedError{d.Keys.Stream(), "is not a stream"}
	}
	return err
}
