package counter

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// A folder's numbers are in Redis under an id, and only one process may write
// under it: the one whose run (a random text) the id's record in Redis names as
// its owner. Each call of a script expects the record as the call before left
// it, so another's record, an older one or none shows at once.
//
// A process takes an id over by putting its run into the record. It may when
// the record was left by an earlier process of the same folder. It may not when
//
//   - the record counts events that this folder never heard of: the folder was
//     set back to an older copy;
//   - the record is of another folder and changes while it is watched: one of
//     the two is a copy of the other.
//
// Then it takes a new id. What the old id has in Redis stays, and is counted
// there; here it becomes a number of an older epoch, which is shown while Redis
// is away and sent only if Redis has lost it.
//
// What was counted and is not in Redis yet is kept apart from what is, under
// the run of the process that counted it. A copy of the folder has a copy of
// that too, so each run is entered in Redis with the id that took it: the
// first takes it, and the other folder drops it.
//
// Three cases are not exact. A copy is made of a process that has not reached
// Redis since it started and is still running when the copy reaches Redis first:
// what both counted since then is dropped by the second. Redis is flushed between
// a copy finding out that it is one and entering its runs: what was on its way
// when the copy was made can count twice. A process is killed between the calls
// of a round, and its folder set back: the record is of all the events of the
// round, of which some are not in the numbers.

// sequences are numbers of events, by stream.
type sequences map[uint8]uint64

func (p sequences) beyond(o sequences) bool {
	for stream, n := range p {
		if n > o[stream] {
			return true
		}
	}
	return false
}

// own is who this folder is to Redis.
type registration struct {
	New          bool      `json:"new,omitempty"`    // Redis was not asked yet whether it knows the folder's journal
	IDs          []string  `json:"ids"`              // of epochs 1, 2, …; the last one is written to
	Runs         []process `json:"runs,omitempty"`   // the last processes of this folder, this one behind the others
	Record       string    `json:"record,omitempty"` // of the id, as Redis acknowledged it last
	Acknowledged sequences `json:"proven,omitempty"` // events that Redis had then
	Skip         sequences `json:"skip,omitempty"`   // events up to here are in Redis under an older id,
	SkipEpoch    epoch     `json:"skipTo,omitempty"` // the one of this epoch
}

// process is one that had this folder.
type process struct {
	Run  string    `json:"run"`
	From sequences `json:"from,omitempty"` // events that were folded when it began
}

const maxRuns = 32

// ended gives what was folded when a process ended; false for one that is not
// of this folder.
func (o registration) ended(run string) (sequences, bool) {
	for i, p := range o.Runs {
		if p.Run == run && i+1 < len(o.Runs) {
			return o.Runs[i+1].From, true
		}
	}
	return nil, false
}

func (o registration) epoch() epoch { return epoch(len(o.IDs)) }

func (o registration) id() string { return o.IDs[len(o.IDs)-1] }

// record is what Redis knows of an id, as JSON.
type record struct {
	Owner    string    `json:"owner,omitempty"` // run of the process that writes; empty: nobody does
	Call     string    `json:"call"`            // another one in each call
	Journal  string    `json:"journal,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Host     string    `json:"host,omitempty"`
	Seen     int64     `json:"seen"`              // unix seconds, by the owner's clock
	Upto     sequences `json:"upto,omitempty"`    // no event after these is in the numbers
	Part     bool      `json:"part,omitempty"`    // an older id that is still being sent
	Kept     bool      `json:"kept,omitempty"`    // its registry is gone, its numbers count
	Removed  bool      `json:"removed,omitempty"` // its registry is gone, its numbers too
}

func (r record) encode() string {
	b, _ := json.Marshal(r) // which can't fail
	return string(b)
}

// parseRecord gives nil for what is not there. A record that can't be read is
// one that nobody owns.
func parseRecord(raw string) *record {
	if raw == "" {
		return nil
	}
	var r record
	if json.Unmarshal([]byte(raw), &r) != nil {
		return &record{}
	}
	return &r
}

func (c *Counter) newRecord() record {
	return record{
		Owner: c.run, Call: random(), Journal: c.journal(), Instance: c.cfg.Instance, Host: c.cfg.Host, Seen: c.cfg.Now().Unix(),
	}
}

func random() string { return strings.ToLower(rand.Text()[:12]) }

func (c *Counter) loadRegistration() error {
	raw, err := store.Read(c.db, []byte(registrationKey))
	if err == nil {
		if err = json.Unmarshal(raw, &c.reg); err == nil && len(c.reg.IDs) == 0 {
			err = errors.New("it has no id")
		}
		if err != nil {
			return fmt.Errorf("damaged value at %q: %w", registrationKey, err)
		}
	} else if errors.Is(err, pebble.ErrNotFound) {
		c.reg, err = registration{New: true, IDs: []string{random()}}, nil
	} else {
		return err
	}
	c.atOpen, c.replayed = c.folded(), sequences{}
	if c.cfg.LastEvent != nil {
		for stream := range uint8(8) {
			c.replayed[stream] = c.cfg.LastEvent(stream)
		}
	}
	c.unsaved = true // until the first write that is needed: the disk may be full
	if c.cfg.Redis == nil {
		// What Redis has is not kept track of any more.
		c.reg.Record = ""
		close(c.asked)
		return nil
	}
	c.run = random()
	c.reg.Runs = append(c.reg.Runs, process{c.run, c.atOpen})
	c.reg.Runs = c.reg.Runs[max(0, len(c.reg.Runs)-maxRuns):]
	c.publisher.init()
	return nil
}

// save writes it if that was not done yet.
func (c *Counter) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsaved {
		return nil
	}
	return c.saveRegistration(pebble.Sync)
}

// saveRegistration writes it. The caller has c.mu, or nobody else has the Counter.
func (c *Counter) saveRegistration(options *pebble.WriteOptions) error {
	b := c.db.NewBatch()
	if err := c.putRegistration(b); err != nil {
		return err
	}
	if err := c.db.Commit(b, options); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

func (c *Counter) putRegistration(b *pebble.Batch) error {
	raw, err := json.Marshal(c.reg)
	if err != nil {
		return err
	}
	return b.Set([]byte(registrationKey), raw, nil)
}

// acknowledged keeps a record that Redis has, with what else was settled by
// the call.
func (c *Counter) acknowledge(rec record, also func(*pebble.Batch) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw := rec.encode()
	b := c.db.NewIndexedBatch()
	c.reg.Record, c.reg.Acknowledged = raw, rec.Upto
	if err := c.putRegistration(b); err != nil {
		return err
	}
	if also != nil {
		if err := also(b); err != nil {
			return err
		}
	}
	if err := c.db.Commit(b, pebble.NoSync); err != nil {
		return err
	}
	c.status.wrote(c.reg.id(), raw)
	return nil
}
