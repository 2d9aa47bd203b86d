package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Keys of formats 1 and 2 of the state, which had JSON values.
const (
	oldLedger        = "l/"   // <owner> 0x00 <digest> -> oldEntry
	oldAnnouncements = "a/d/" // <repository> 0x00 <digest> -> announcement
	oldImageSizes    = "a/m/" // not needed any more
	oldInbound       = "k/2"  // <day>/<name> -> inbound notification; a day begins with its century
)

// Config configures Run.
type Config struct {
	State     state.Store
	Handled   uint64 // sequence number of the last push that the records sink has handled
	Ledger    *ledger.Ledger
	Posts     *posted.History
	Reconcile func() error // has storage compared with the ledger
	Logger    *slog.Logger
}

type migration struct{ Config }

// Run rewrites what formats 1 and 2 of the state have under other keys. If it is
// interrupted, the next Run continues it.
func Run(cfg Config) error {
	m := migration{cfg}
	old, err := m.hasOldFormat()
	if err != nil || !old {
		return err
	}
	m.Logger.Info("rewriting the state for this version")
	for _, step := range []func() error{
		m.migrateOutbox,
		func() error { return m.migrateRows(oldLedger, m.migrateEntry) },
		func() error { return m.migrateRows(oldAnnouncements, m.migrateAnnouncement) },
		func() error { return m.migrateRows(oldInbound, migrateInbound) },
		func() error { return m.deletePrefix(oldImageSizes) },
		m.Reconcile, // earlier versions could leave records of deleted manifests
	} {
		if err := step(); err != nil {
			return fmt.Errorf("rewrite the state of an earlier version: %w", err)
		}
	}
	return nil
}

func (m migration) deletePrefix(prefix string) error {
	var b state.Batch
	b.DeleteRange(state.Prefix(prefix))
	return m.State.Commit(&b, state.Sync)
}

// hasOldFormat reports whether there is a state that Run has not finished.
func (m migration) hasOldFormat() (bool, error) {
	migrating, err := state.Has(m.State, state.RecordsBatched)
	if err != nil {
		return false, err
	}
	if migrating {
		return m.hasRows(oldImageSizes, oldLedger, oldAnnouncements, oldInbound)
	}
	if m.Handled == 0 {
		return false, nil
	}
	return m.hasRows(state.Pushes, oldLedger, oldAnnouncements) // none: the state is new, and the journal is not
}

// hasRows reports whether there is a key with one of the prefixes.
func (m migration) hasRows(prefixes ...string) (has bool, err error) {
	for _, prefix := range prefixes {
		err = m.State.Scan(state.Prefix(prefix), func(_, _ []byte) error { has = true; return state.ErrStop })
		if err != nil || has {
			return has, err
		}
	}
	return false, nil
}

var errPageFull = errors.New("page is full")

// migrateRows moves the rows with a prefix, a thousand in a commit. put adds a row in
// its new form; it gets the key without the prefix.
func (m migration) migrateRows(prefix string, put func(b *state.Batch, key string, val []byte) error) error {
	for more := true; more; {
		var b state.Batch
		rows := 0
		err := m.State.Scan(state.Prefix(prefix), func(key, val []byte) error {
			if rows++; rows > 1000 {
				return errPageFull
			}
			if err := put(&b, string(key[len(prefix):]), val); err != nil {
				return fmt.Errorf("%q: %w", key, err)
			}
			b.Delete([]byte(string(key)))
			return nil
		})
		if more = errors.Is(err, errPageFull); err != nil && !more {
			return err
		}
		if err := m.State.Commit(&b, state.Sync); err != nil {
			return err
		}
	}
	return nil
}

// oldEntry is a ledger entry up to format 2.
type oldEntry struct {
	State string `json:"state"` // "claimed", "written" or "deleted"
	ledger.Entry
}

// entry is the entry in its present form, nil if it is deleted or never was written.
func (e oldEntry) entry() *ledger.Entry {
	if e.State != "written" && e.State != "claimed" {
		return nil
	}
	return &e.Entry
}

func (m migration) migrateEntry(b *state.Batch, key string, val []byte) error {
	owner, digest, _ := strings.Cut(key, "\x00")
	var e oldEntry
	if err := json.Unmarshal(val, &e); err != nil {
		return err
	}
	if e.State == "written" && len(e.Repositories) > 0 {
		m.Ledger.Put(b, owner, digest, e.Entry)
	}
	return nil // a claimed entry is written by the outbox, or when its event is read again
}

func (m migration) migrateAnnouncement(b *state.Batch, key string, val []byte) error {
	repository, digest, _ := strings.Cut(key, "\x00")
	var old struct {
		PostURI string `json:"postUri"`
	}
	if err := json.Unmarshal(val, &old); err != nil {
		return err
	}
	var e posted.Entry
	if old.PostURI != "" {
		e.RKey = path.Base(old.PostURI)
	}
	return m.Posts.Add(b, repository, digest, e)
}

func migrateInbound(b *state.Batch, key string, val []byte) error {
	_, name, _ := strings.Cut(key, "/")
	return inbound.Migrate(b, name, val)
}

// migrateOutbox rewrites the records sink's outbox, and notes up to which event the sink
// has batches.
func (m migration) migrateOutbox() error {
	var old struct {
		Manifests []struct {
			Seq    uint64       `json:"seq"`
			Owner  string       `json:"owner"`
			Digest string       `json:"digest"`
			Before oldEntry     `json:"before"`
			After  oldEntry     `json:"after"`
			Writes []repo.Write `json:"writes"`
		} `json:"manifests"`
	}
	outbox := delivery.NewOutbox(m.State, state.RecordsOutbox, nil)
	pending, err := outbox.Load(&old)
	if err != nil {
		return err
	}
	batched := m.Handled
	var b state.Batch
	if !pending {
		records.PutLastBatched(&b, batched)
		return m.State.Commit(&b, state.Sync)
	}
	// The old format has one change for each event, the present one for each manifest.
	var batch records.Batch
	index := map[string]int{}
	for _, o := range old.Manifests {
		batched = max(batched, o.Seq)
		id := o.Owner + "\x00" + o.Digest
		i, again := index[id]
		if !again {
			i = len(batch.Manifests)
			index[id] = i
			batch.Manifests = append(batch.Manifests, records.Change{Owner: o.Owner, Digest: o.Digest, Before: o.Before.entry()})
		}
		c := &batch.Manifests[i]
		c.After = o.After.entry()
		c.Writes = append(c.Writes, o.Writes...)
		event := records.Cause{Seq: o.Seq, Push: o.After.State != "deleted"}
		if len(o.After.Repositories) > 0 {
			event.Repository = o.After.Repositories[0]
		}
		c.Events = append(c.Events, event)
	}
	records.PutLastBatched(&b, batched)
	return outbox.Put(&b, &batch)
}
