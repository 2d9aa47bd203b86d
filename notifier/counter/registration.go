package counter

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// registration is what the data folder stores of its counts in Redis.
type registration struct {
	New          bool                  `json:"new,omitempty"`    // Redis was not asked yet for a record of the folder's journal
	IDs          []string              `json:"ids"`              // registry ids of epochs 1, 2, …; counts are sent under the last one
	Runs         []process             `json:"runs,omitempty"`   // the last processes of this folder, the current one at the end
	Record       string                `json:"record,omitempty"` // of the current id, as last acknowledged by Redis
	Acknowledged rediscounts.Sequences `json:"proven,omitempty"` // last events that Redis had then
	Skip         rediscounts.Sequences `json:"skip,omitempty"`   // events up to here are in Redis under an older id,
	SkipEpoch    epoch                 `json:"skipTo,omitempty"` // which is that of this epoch
}

// process is a process that had this folder open.
type process struct {
	Run  string                `json:"run"`
	From rediscounts.Sequences `json:"from,omitempty"` // last events that were folded when it started
}

const maxRuns = 32

// ended returns the last events that were folded when a process ended; false if the process
// is the current one or is unknown.
func (o registration) ended(run string) (rediscounts.Sequences, bool) {
	for i, p := range o.Runs {
		if p.Run == run && i+1 < len(o.Runs) {
			return o.Runs[i+1].From, true
		}
	}
	return nil, false
}

func (o registration) epoch() epoch { return epoch(len(o.IDs)) }

func (o registration) id() string { return o.IDs[len(o.IDs)-1] }

func (c *Counter) newRecord() rediscounts.Record {
	return rediscounts.Record{
		Owner: c.run, Call: rediscounts.NewID(), Journal: c.journal(),
		Instance: c.cfg.Instance, Host: c.cfg.Host, Seen: c.cfg.Now().Unix(),
	}
}

func (c *Counter) loadRegistration() error {
	raw, err := store.Read(c.db, []byte(registrationKey))
	if err == nil {
		if err = json.Unmarshal(raw, &c.reg); err == nil && len(c.reg.IDs) == 0 {
			err = errors.New("no registry id")
		}
		if err != nil {
			return fmt.Errorf("damaged value at %q: %w", registrationKey, err)
		}
	} else if errors.Is(err, store.ErrNotFound) {
		c.reg, err = registration{New: true, IDs: []string{rediscounts.NewID()}}, nil
	} else {
		return err
	}
	c.atOpen, c.replayed = c.folded(), rediscounts.Sequences{}
	if c.cfg.LastEvent != nil {
		for stream := range uint8(8) {
			c.replayed[stream] = c.cfg.LastEvent(stream)
		}
	}
	c.unsaved = true // stored with the first commit, since the disk may be full now
	if c.redis == nil {
		// Without Redis it is unknown what Redis has from now on.
		c.reg.Record = ""
		close(c.asked)
		return nil
	}
	c.run = rediscounts.NewRun(c.cfg.Now())
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
	return c.saveRegistration(store.Sync)
}

// saveRegistration writes the registration. The caller must hold c.mu.
func (c *Counter) saveRegistration(d store.Durability) error {
	b := c.db.NewBatch()
	if err := c.putRegistration(b); err != nil {
		return err
	}
	if err := c.db.Commit(b, d); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

func (c *Counter) putRegistration(b store.Batch) error {
	raw, err := json.Marshal(c.reg)
	if err != nil {
		return err
	}
	return b.Set([]byte(registrationKey), raw)
}

// acknowledge stores a record that Redis has, in one synced batch with what also adds.
func (c *Counter) acknowledge(rec rediscounts.Record, also func(store.Batch) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw := rec.Encode()
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
	if err := c.db.Commit(b, store.Sync); err != nil {
		return err
	}
	c.status.wrote(c.reg.id(), raw)
	return nil
}
