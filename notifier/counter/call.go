package counter

import (
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

//go:embed publish.lua
var publishSource string

var publishScript = redis.NewScript(publishSource)

// callFields is how many fields a call of the script takes, about: they keep
// Redis from others for a millisecond.
const callFields = 256

type mark struct {
	suffix string
	stamp  uint64
}

// call gathers rows of one bucket for a call of the script, and makes it when
// there are enough. A call leaves a new generation, which the next one expects:
// whatever Redis loses between two calls, the second one sees it.
type call struct {
	r        *round
	bucket   int
	expected string
	whole    bool

	repositories []string
	suffix       []string // of the first row of each
	args         [][]any  // of each: journal, field, value, …
	fields       int
	rows         int
	marks        []mark // to settle when the call is done
}

func (r *round) call(bucket int, expected string, whole bool) *call {
	return &call{r: r, bucket: bucket, expected: expected, whole: whole}
}

// row adds a row; without a value, the row is gone and its fields go too.
func (c *call) row(suffix string, val []byte) error {
	if c.fields >= callFields {
		if err := c.flush(); err != nil {
			return err
		}
	}
	id, err := parseRow(suffix)
	if err != nil {
		return err
	}
	last := len(c.repositories) - 1
	if last < 0 || c.repositories[last] != id.repository {
		c.repositories = append(c.repositories, id.repository)
		c.suffix = append(c.suffix, suffix)
		c.args = append(c.args, nil)
		last++
	}
	c.rows++
	if val == nil {
		for _, class := range Classes {
			c.field(last, id, id.field(class), "")
		}
		return nil
	}
	row, err := decodeRow(val)
	if err != nil {
		return fmt.Errorf("%w at %q", err, suffix)
	}
	for i, n := range row.counts {
		if n > 0 {
			c.field(last, id, id.field(Classes[i]), strconv.FormatUint(n, 10))
		}
	}
	if row.lastPull > 0 {
		c.field(last, id, lastPullField, strconv.FormatInt(row.lastPull, 10))
	}
	if row.lastPush > 0 {
		c.field(last, id, lastPushField, strconv.FormatInt(row.lastPush, 10))
	}
	return nil
}

func (c *call) field(repository int, id rowID, field, value string) {
	c.args[repository] = append(c.args[repository], id.journal, field, value)
	c.fields++
}

func (c *call) flush() error {
	if c.rows == 0 {
		return nil
	}
	next := newGeneration()
	missing, damaged, err := c.run(next)
	if err != nil {
		return err
	}
	c.expected = next
	c.r.rows += c.rows
	for _, name := range missing {
		if c.expected, err = c.r.repository(c.bucket, name, c.expected); err != nil {
			return err
		}
	}
	if c.whole {
		for _, name := range damaged {
			if err := c.r.c.remark(c.suffixOf(name)); err != nil {
				return err
			}
		}
	}
	if !c.whole {
		if err := c.r.c.settle(c.bucket, c.expected, c.marks, c.r.damaged); err != nil {
			return err
		}
	}
	c.repositories, c.suffix, c.args, c.marks, c.fields, c.rows = nil, nil, nil, nil, 0, 0
	return nil
}

func (c *call) suffixOf(repository string) string {
	for i, name := range c.repositories {
		if name == repository {
			return c.suffix[i]
		}
	}
	return ""
}

// run calls the script. What it says is damaged goes into the round's report.
func (c *call) run(next string) (missing, damaged []string, err error) {
	bucket := hexDigits[c.bucket]
	keys := []string{generationKey(bucket), repositoriesKey(bucket)}
	whole := "0"
	if c.whole {
		whole = "1"
	}
	args := []any{c.r.c.id, c.expected, next, whole}
	for i, name := range c.repositories {
		keys = append(keys, repositoryKey(name))
		args = append(args, name, len(c.args[i])/3)
		args = append(args, c.args[i]...)
	}
	reply, err := publishScript.Run(c.r.ctx, c.r.c.cfg.Redis, keys, args...).Slice()
	if err != nil {
		return nil, nil, err
	}
	switch status, _ := reply[0].(string); status {
	case "lost":
		return nil, nil, errLost
	case "damaged":
		return nil, nil, &DamagedError{Key: fmt.Sprint(reply[1]), Reason: fmt.Sprintf("is a %v", reply[2])}
	}
	for _, name := range reply[1].([]any) {
		missing = append(missing, name.(string))
	}
	list := reply[2].([]any)
	for i := 0; i+1 < len(list); i += 2 {
		name := list[i].(string)
		key := repositoryKey(name)
		c.r.damaged[key] = &DamagedError{Key: key, Reason: list[i+1].(string)}
		damaged = append(damaged, name)
	}
	c.r.ahead += int(reply[3].(int64))
	return missing, damaged, nil
}
