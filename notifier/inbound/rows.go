package inbound

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A row is a notification in the state.
type row struct {
	Seq    uint64                        `json:"seq"` // 0: not recorded yet
	Time   time.Time                     `json:"time"`
	Input  string                        `json:"input,omitempty"`
	Answer *lexicon.NotifyManifestOutput `json:"answer,omitempty"` // the response; nil: not complete yet
	Brief  bool                          `json:"brief,omitempty"`  // of an unlisted account
}

// stored reads a notification from the state; nil: there is none.
func (l *Log) stored(name string) (*row, error) {
	val, err := l.cfg.State.Get(nameKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	var r row
	if err == nil {
		err = json.Unmarshal(val, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("read inbound notifications: %w", err)
	}
	return &r, nil
}

// A Batch collects the notifications of events that are counted together.
type Batch struct {
	log  *Log
	rows map[string]*row // by name
}

// NewBatch returns an empty batch.
func (l *Log) NewBatch() *Batch { return &Batch{log: l} }

// Repeated reports whether the key of an event's notification has an earlier event,
// which became durable although the journal reported an error. If not, Repeated adds
// the notification.
func (b *Batch) Repeated(seq uint64, at time.Time, id *ID) (bool, error) {
	if id.Key != "" {
		r := b.rows[id.Key]
		if r == nil {
			var err error
			if r, err = b.log.stored(id.Key); err != nil {
				return false, err
			}
		}
		if r != nil && r.Seq != seq {
			return true, nil
		}
	}
	if b.rows == nil {
		b.rows = map[string]*row{}
	}
	for _, name := range id.names() {
		b.rows[name] = &row{Seq: seq, Time: at, Input: id.Input, Brief: id.Unlisted}
	}
	return false, nil
}

// AddTo adds the notifications to the batch that counts their events. At most once an
// hour it also removes the oldest names.
func (b *Batch) AddTo(batch *state.Batch) error {
	for name, r := range b.rows {
		if err := r.put(batch, name); err != nil {
			return err
		}
	}
	if b.rows == nil {
		return nil
	}
	return b.log.prune(batch)
}

// prune removes names that are older than keepFor or keepBriefly, except the newest
// keepNames.
func (l *Log) prune(batch *state.Batch) error {
	now := l.cfg.Now()
	if now.Sub(l.pruned).Abs() < time.Hour {
		return nil
	}
	l.pruned = now
	if err := l.pruneOlder(batch, state.InboundBySeq, now.Add(-keepFor)); err != nil {
		return err
	}
	return l.pruneOlder(batch, state.InboundBrief, now.Add(-keepBriefly))
}

// pruneOlder removes the names under prefix from before oldest, except the newest keepNames.
func (l *Log) pruneOlder(batch *state.Batch, prefix string, oldest time.Time) error {
	bySeq := state.Prefix(prefix)
	names := 0
	if err := l.cfg.State.Scan(bySeq, func(_, _ []byte) error { names++; return nil }); err != nil {
		return err
	}
	return l.cfg.State.Scan(bySeq, func(key, _ []byte) error {
		nameAt := len(prefix) + 9
		if names--; names < keepNames || len(key) < nameAt {
			return state.ErrStop
		}
		name := string(key[nameAt:])
		r, err := l.stored(name)
		if err != nil {
			return err
		}
		if r != nil && !r.Time.Before(oldest) {
			return state.ErrStop
		}
		batch.Delete(nameKey(name))
		batch.Delete(append([]byte(nil), key...))
		return nil
	})
}

func (r *row) put(b *state.Batch, name string) error {
	val, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode inbound notification: %w", err)
	}
	b.Set(nameKey(name), val)
	prefix := state.InboundBySeq
	if r.Brief {
		prefix = state.InboundBrief
	}
	b.Set(state.SeqKey(prefix, r.Seq, "/"+name), nil)
	return nil
}

// Migrate adds a notification of format 2 of the state.
func Migrate(b *state.Batch, name string, val []byte) error {
	var r row
	if err := json.Unmarshal(val, &r); err != nil {
		return err
	}
	return r.put(b, name)
}

func nameKey(name string) []byte { return []byte(state.InboundByName + name) }
