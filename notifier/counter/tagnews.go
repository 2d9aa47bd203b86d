package counter

import (
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"
)

// tagNews says that a tag was deleted, or that it is there again. Registries
// that share their storage each have numbers of a tag, and only one of them
// hears that it is deleted.
type tagNews struct {
	repository, tag string
	gone            bool
}

const (
	maxTagNews  = 4096 // that wait while Redis is away
	newsInEntry = 256
)

// An entry of the stream has a line for each tag: + or -, the repository, a zero
// byte, the tag.
func (n tagNews) String() string {
	sign := "+"
	if n.gone {
		sign = "-"
	}
	return sign + n.repository + "\x00" + n.tag
}

func parseTagNews(line string) (n tagNews, ok bool) {
	sign, rest := line[:min(1, len(line))], line[min(1, len(line)):]
	n.gone = sign == "-"
	n.repository, n.tag, ok = strings.Cut(rest, "\x00")
	return n, ok && n.repository != "" && n.tag != "" && (n.gone || sign == "+")
}

func (r *round) tellTags() error {
	c := r.c
	c.mu.Lock()
	news := c.tagNews
	c.tagNews = nil
	c.mu.Unlock()
	for len(news) > 0 {
		n := min(len(news), newsInEntry)
		lines := make([]string, n)
		for i, one := range news[:n] {
			lines[i] = one.String()
		}
		err := c.cfg.Redis.XAdd(r.ctx, &redis.XAddArgs{
			Stream: c.keys.children(), MaxLen: streamEntries, Approx: true, Values: []any{"from", c.run, "tags", strings.Join(lines, "\n")},
		}).Err()
		if err != nil {
			c.mu.Lock()
			c.tagNews = append(news, c.tagNews...)
			c.tagNews = c.tagNews[:min(len(c.tagNews), maxTagNews)]
			c.mu.Unlock()
			return r.stream(err)
		}
		news = news[n:]
	}
	return nil
}

// learnTags marks the tags that this disk has numbers of. An entry is read again
// after a restart, and then changes nothing: it has a day of its own.
func (c *Counter) learnTags(lines, entry string) error {
	millis, _, _ := strings.Cut(entry, "-")
	at, err := strconv.ParseInt(millis, 10, 64)
	if err != nil {
		at = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	today := dayOf(c.cfg.Now())
	day := at / dayMillis
	if day <= 0 || day > today {
		day = today
	}
	w := &writer{id: c.own.id(), epoch: c.own.epoch(), own: true}
	b := c.db.NewIndexedBatch()
	for line := range strings.SplitSeq(lines, "\n") {
		news, ok := parseTagNews(line)
		if !ok {
			continue
		}
		it, err := c.load(b, rowID{news.repository, perTag, news.tag}, w)
		if err != nil {
			return err
		}
		if !it.sum.counted() || news.gone == (it.sum.gone >= goneSince) {
			continue
		}
		key := pendingKey(it.id, fresh+c.run)
		waits, _, err := readRow(b, key)
		if err != nil {
			return err
		}
		if waits.gone = there; news.gone {
			waits.gone = goneOn(day)
			if err := forgetPushed(b, news.repository, news.tag, nil); err != nil {
				return err
			}
		}
		if err := b.Set(key, waits.encode(), nil); err != nil {
			return err
		}
	}
	return c.db.Commit(b, pebble.NoSync)
}
