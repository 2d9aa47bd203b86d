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

// sequences are sequence numbers of events, by stream.
type sequences map[uint8]uint64

// beyond reports whether any stream is further than in o.
func (p sequences) beyond(o sequences) bool {
	for stream, n := range p {
		if n > o[stream] {
			return true
		}
	}
	return false
}

// registration is how this folder's numbers are registered in Redis.
type registration struct {
	New          bool      `json:"new,omitempty"`    // Redis was not asked yet whether it has a record of the folder's journal
	IDs          []string  `json:"ids"`              // registry ids of epochs 1, 2, …; numbers are sent under the last one
	Runs         []process `json:"runs,omitempty"`   // the last processes of this folder, the current one at the end
	Record       string    `json:"record,omitempty"` // of the current id, as last acknowledged by Redis
	Acknowledged sequences `json:"proven,omitempty"` // events that Redis had then
	Skip         sequences `json:"skip,omitempty"`   // events up to here are in Redis under an older id,
	SkipEpoch    epoch     `json:"skipTo,omitempty"` // which is that of this epoch
}

// process is one that had this folder open.
type process struct {
	Run  string    `json:"run"`
	From sequences `json:"from,omitempty"` // the last events that were folded when it started
}

const maxRuns = 32

// ended returns the last events that were folded when a process ended; false if the
// process is not of this folder.
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

// record is the value of a registry id in Redis, as JSON.
type record struct {
	Owner    string    `json:"owner,omitempty"` // run of the process that writes under the id; empty: none does
	Call     string    `json:"call"`            // random, different in each call
	Journal  string    `json:"journal,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Host     string    `json:"host,omitempty"`
	Seen     int64     `json:"seen"`              // unix seconds, by the owner's clock
	Upto     sequences `json:"upto,omitempty"`    // no event after these is in the numbers
	Part     bool      `json:"part,omitempty"`    // an older id whose numbers are being restored
	Kept     bool      `json:"kept,omitempty"`    // ended by Forget, its numbers count
	Removed  bool      `json:"removed,omitempty"` // ended by Forget, its numbers were removed
}

func (r record) encode() string {
	b, _ := json.Marshal(r) // can't fail
	return string(b)
}

// parseRecord returns nil if there is no record. A record that can't be parsed has
// no owner.
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
			err = errors.New("no registry id")
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
	c.unsaved = true // saved with the first commit, for the disk may be full now
	if c.cfg.Redis == nil {
		// From here on it is not known what Redis has.
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

// save writes the registration if it has changed.
func (c *Counter) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsaved {
		return nil
	}
	return c.saveRegistration(pebble.Sync)
}

// saveRegistration writes the registration. The caller holds c.mu, or has the only
// reference to c.
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

// acknowledge stores the record that Redis has, in one batch with what also adds.
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
	if err := c.db.Commit(b, pebble.Sync); err != nil {
		return err
	}
	c.status.wrote(c.reg.id(), raw)
	return nil
}
