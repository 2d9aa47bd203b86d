package notifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// migrate rewrites what formats 1 and 2 of the state have under other keys:
//
//	l/<owner>\0<digest>        entry of the ledger, as JSON
//	a/d/<repository>\0<digest> announcement, as JSON
//	a/m/…                      size of an image, not needed any more
//	k/<day>/<name>             call of another registry
//	b/records                  outbox
//
// Interrupted, it goes on at the next start.
func (n *Notifier) migrate() error {
	old, err := n.hasOld()
	if err != nil || !old {
		return err
	}
	n.log.Info("rewriting the state for this version")
	for _, step := range []func() error{
		n.migrateOutbox,
		func() error { return n.migrateRows("l/", n.migrateEntry) },
		func() error { return n.migrateRows("a/d/", migrateAnnounced) },
		func() error { return n.migrateRows("k/2", migrateCall) }, // a day begins with its century
		func() error { return n.deleteRange("a/m/") },
		n.WantReconcile, // earlier versions could leave records of what was deleted
	} {
		if err := step(); err != nil {
			return fmt.Errorf("rewrite the state of an earlier version: %w", err)
		}
	}
	return nil
}

func (n *Notifier) deleteRange(prefix string) error {
	var b state.Batch
	b.DeleteRange(state.Prefix(prefix))
	return n.State.Commit(&b, state.Sync)
}

// hasOld reports whether there is a state that migrate has not finished with.
func (n *Notifier) hasOld() (bool, error) {
	_, err := n.State.Get(gatheredKey)
	if err == nil {
		return n.hasRows("a/m/", "l/", "a/d/", "k/2")
	}
	if !errors.Is(err, state.ErrNotFound) {
		return false, err
	}
	if n.Journal.Cursor(journal.Pushes, recordsName) == 0 {
		return false, nil
	}
	return n.hasRows("p/", "l/", "a/d/") // else the state is a new one, beside a journal that is not
}

// hasRows reports whether there is a row with one of the prefixes.
func (n *Notifier) hasRows(prefixes ...string) (has bool, err error) {
	for _, prefix := range prefixes {
		if err = eachRow(n.State, prefix, func(string, []byte) error { has = true; return state.Stop }); err != nil || has {
			return has, err
		}
	}
	return false, nil
}

// eachRow calls visit with the rest of each key that begins with prefix and its
// value.
func eachRow(r state.Store, prefix string, visit func(key string, val []byte) error) error {
	return r.Scan(state.Prefix(prefix), func(key, val []byte) error { return visit(string(key[len(prefix):]), val) })
}

// migrateRows lets put write each row anew, a thousand at a time.
func (n *Notifier) migrateRows(prefix string, put func(b *state.Batch, key string, val []byte) error) error {
	for more := true; more; {
		more = false
		rows := 0
		b := &state.Batch{}
		err := eachRow(n.State, prefix, func(key string, val []byte) error {
			if rows++; rows > 1000 {
				more = true
				return state.Stop
			}
			if err := put(b, key, val); err != nil {
				return fmt.Errorf("%s%q: %w", prefix, key, err)
			}
			b.Delete([]byte(prefix + key))
			return nil
		})
		if err != nil {
			return err
		}
		if err := n.State.Commit(b, state.Sync); err != nil {
			return err
		}
	}
	return nil
}

// oldEntry is an entry of the ledger up to format 2.
type oldEntry struct {
	State string `json:"state"` // "claimed", "written" or "deleted"
	ledger.Entry
}

func (n *Notifier) migrateEntry(b *state.Batch, key string, val []byte) error {
	owner, digest, _ := strings.Cut(key, "\x00")
	var e oldEntry
	if err := json.Unmarshal(val, &e); err != nil {
		return err
	}
	if e.State != "written" || len(e.Repositories) == 0 {
		return nil // the outbox, or the event when it is met again, makes what is claimed
	}
	n.ledger.Put(b, owner, digest, e.Entry)
	return nil
}

func migrateAnnounced(b *state.Batch, key string, val []byte) error {
	repository, digest, _ := strings.Cut(key, "\x00")
	var old struct {
		PostURI string `json:"postUri"`
	}
	if err := json.Unmarshal(val, &old); err != nil {
		return err
	}
	var p announcedPost
	if old.PostURI != "" {
		p.rkey = path.Base(old.PostURI)
	}
	b.Set(announcedKey(repository, digest), announced{p}.encode())
	return nil
}

func migrateCall(b *state.Batch, key string, val []byte) error {
	_, name, _ := strings.Cut(key, "/")
	var m made
	if err := json.Unmarshal(val, &m); err != nil {
		return err
	}
	return putCall(b, name, &m)
}

// migrateOutbox rewrites the batch of layer records that is on its way, and notes
// how far the records sink is.
func (n *Notifier) migrateOutbox() error {
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
	o := (&recordSink{n}).outbox()
	onItsWay, err := o.load(&old)
	if err != nil {
		return err
	}
	gathered := n.Journal.Cursor(journal.Pushes, recordsName)
	b := &state.Batch{}
	if !onItsWay {
		putGathered(b, gathered)
		return n.State.Commit(b, state.Sync)
	}
	// Each event was a change of its own; a manifest has one now.
	var next recordBatch
	at := map[string]int{}
	for _, m := range old.Manifests {
		gathered = max(gathered, m.Seq)
		id := m.Owner + "\x00" + m.Digest
		i, again := at[id]
		if !again {
			i = len(next.Manifests)
			at[id] = i
			next.Manifests = append(next.Manifests, recordChange{Owner: m.Owner, Digest: m.Digest, Before: m.Before.now()})
		}
		c := &next.Manifests[i]
		c.After = m.After.now()
		c.Writes = append(c.Writes, m.Writes...)
		event := recordEvent{Seq: m.Seq, Push: m.After.State != "deleted"}
		if len(m.After.Repositories) > 0 {
			event.Repository = m.After.Repositories[0]
		}
		c.Events = append(c.Events, event)
	}
	putGathered(b, gathered)
	return o.put(b, &next)
}

// now is the entry as it is kept now, nil if there was none or it is deleted.
func (e oldEntry) now() *ledger.Entry {
	if e.State != "written" && e.State != "claimed" {
		return nil
	}
	return &e.Entry
}
