package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// The journal, the notifier's state and the account's repository are three
// stores, and an operator can lose one or set it back to an older copy. At start,
// before anything is written, they prove to each other that they belong
// together:
//
//   - The state is behind the journal if the records sink's cursor is beyond the
//     last event that the state has gathered.
//   - The journal is behind the state if it ends before that event, or has another
//     id than at the last start.
//   - The account is behind the state if its revision is older than the one
//     noted with the last batch.
//   - The account may be behind the state, whatever its revision, if its
//     repository is in another folder than at the last start: it was begun anew,
//     imported, repaired, or put back from a copy.
//   - All three may be behind storage if the folder that they are in is not the
//     one of the last start: it is a copy, or was put back from one.
//   - The state is behind the account if that has, among its newest, a record or
//     post of ours that the state does not know. This is looked at only if the
//     revision is another than the one noted.
//
// Where one is behind, the ledger and the marks of announcements are made anew
// from the account's records, and reconcile compares the ledger with the
// registry's storage.

// revKey holds the account's revision after the last batch that was settled.
var revKey = []byte("b/rev")

// journalKey, folderKey and gateKey hold the journal's id, Config.Folder and
// Config.Gate at the last start.
var (
	journalKey = []byte("b/journal")
	folderKey  = []byte("b/folder")
	gateKey    = []byte("b/gate")
)

// accountFolderKey holds the name of the repository's folder when the stores last
// belonged together.
var accountFolderKey = []byte("b/account")

// rebuildKey is there while the ledger is made anew, or is to be: see
// WantRebuild.
var rebuildKey = []byte("b/rebuild")

// rebuildAsked is the value of rebuildKey if an operator asked for it.
const rebuildAsked = "asked"

// newestKnown is how many of the newest records are looked up in the state.
const newestKnown = 200

// prove returns once the stores are known to belong together, or made to.
func (n *Notifier) prove(ctx context.Context) error {
	n.proving.Lock()
	defer n.proving.Unlock()
	if n.proven.Load() {
		return nil
	}
	for _, s := range n.sinks {
		if err := s.resume(ctx); err != nil {
			return err
		}
	}
	reason, err := n.apart()
	if err != nil {
		return fmt.Errorf("compare state and account: %w", err)
	}
	if reason != "" {
		n.log.Warn("the ledger is rebuilt from the account's records: " + reason)
		if err := n.rebuild(ctx); err != nil {
			return fmt.Errorf("rebuild ledger: %w", err)
		}
	}
	if err := n.noteAccount(); err != nil {
		return err
	}
	n.proven.Store(true)
	n.results.ring()
	return nil
}

// followRecords makes a journal that ends before what the state has gathered take
// numbers beyond that, and another id. Events are lost then, so storage is compared
// with the ledger.
func (n *Notifier) followRecords() error {
	gathered, err := n.gathered()
	if err != nil {
		return err
	}
	reached := max(gathered, n.Counter.Latest(uint8(journal.Pushes)))
	if reached <= n.Journal.Status(journal.Pushes).Last {
		return nil
	}
	n.log.Warn("the journal is older than the state; what only it knew is lost, and the registry's storage is compared with the ledger")
	if err := n.WantReconcile(); err != nil {
		return err
	}
	return n.Journal.Follow(journal.Pushes, reached)
}

// noteNames lets storage be compared with the ledger if the journal, the folder,
// or what may be published is another than at the last start. The name and the
// wish to compare are noted together, so that no crash in between hides it.
func (n *Notifier) noteNames() error {
	b := &state.Batch{}
	for _, name := range []struct {
		key []byte
		now string
		say string
	}{
		{journalKey, n.Journal.ID(), "the journal has another id than at the last start: it was lost, or is older than its readers"},
		{folderKey, n.Folder, "the data folder, or the journal in it, was copied or restored since the last start"},
		{gateKey, n.Gate, "the options public or owner have changed since the last start"},
	} {
		before, err := n.State.Get(name.key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if name.now == "" || err == nil && string(before) == name.now {
			continue
		}
		if err == nil {
			n.log.Warn(name.say + "; the registry's storage is compared with what is recorded")
			b.Set(reconcileKey, []byte(phaseWalk))
		}
		b.Set(name.key, []byte(name.now))
	}
	return n.State.Commit(b, state.Sync)
}

// noteAccount notes which repository the state belongs to, and its revision.
func (n *Notifier) noteAccount() error {
	b := &state.Batch{}
	b.Set(revKey, []byte(n.Publisher.Head().Rev))
	if n.AccountFolder != "" {
		b.Set(accountFolderKey, []byte(n.AccountFolder))
	}
	return n.State.Commit(b, state.Sync)
}

// accountFolder reports whether the account's repository is where it was, and
// whether that is known.
func (n *Notifier) accountFolder() (same, known bool, err error) {
	if n.AccountFolder == "" {
		return true, false, nil
	}
	before, err := n.State.Get(accountFolderKey)
	if errors.Is(err, state.ErrNotFound) {
		return false, false, nil
	}
	return string(before) == n.AccountFolder, true, err
}

// WantRebuild lets the next Run make the ledger anew from the account's records,
// and compare it with storage.
func (n *Notifier) WantRebuild() error {
	return state.Set(n.State, rebuildKey, []byte(rebuildAsked), state.Sync)
}

// apart says why state and account do not belong together; "" if they do.
func (n *Notifier) apart() (reason string, err error) {
	// A repository that can't be opened has no revision that says anything.
	if _, _, err := n.Publisher.List(lexicon.NSIDLayer, "", 1, false); err != nil {
		return "", err
	}
	switch asked, err := n.State.Get(rebuildKey); {
	case err == nil && string(asked) == rebuildAsked:
		return "`tidings reconcile` asks for it", nil
	case err == nil:
		return "an earlier rebuild was interrupted", nil
	case !errors.Is(err, state.ErrNotFound):
		return "", err
	}
	same, known, err := n.accountFolder()
	if err != nil {
		return "", err
	}
	if known && !same {
		return "the account's repository was replaced or restored", nil
	}
	gathered, err := n.gathered()
	if err != nil {
		return "", err
	}
	if n.Journal.Cursor(journal.Pushes, recordsName) > gathered {
		return "the state is older than the journal", nil
	}
	noted, err := n.State.Get(revKey)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	rev := n.Publisher.Head().Rev
	switch {
	case rev == string(noted):
		return "", nil
	case rev < string(noted):
		return "the account's repository is older than the state", nil
	}
	now := tid(n.Now().UnixMicro(), 1023)
	for _, from := range []string{"", now} { // keys can be ahead of the clock
		known, err := n.newestAreKnown(from)
		if err != nil {
			return "", err
		}
		if !known {
			return "the account has records that the state does not know", nil
		}
	}
	return "", nil
}

// newestAreKnown reports whether the state knows the records and posts of ours
// that are the newest below a key.
func (n *Notifier) newestAreKnown(below string) (bool, error) {
	layers, _, err := n.Publisher.List(lexicon.NSIDLayer, below, newestKnown, false)
	if err != nil {
		return false, err
	}
	for _, r := range layers {
		l, ok := readLayer(r)
		if !ok {
			continue
		}
		e, found, err := n.ledger.Get(l.owner, l.digest)
		if err != nil {
			return false, err
		}
		if !found || l.micros <= e.First || l.micros > e.First+int64(e.Records) {
			return false, nil
		}
	}
	posts, _, err := n.Publisher.List(lexicon.NSIDPost, below, newestKnown, false)
	if err != nil {
		return false, err
	}
	for _, p := range posts {
		image, ok := readOrigin(p)
		if !ok {
			continue
		}
		if before, err := n.announced(image.Repository, image.Digest); err != nil || !before.has(p.RKey) {
			return false, err
		}
	}
	return true, nil
}

// A layerRecord is what is read from a layer record in the account.
type layerRecord struct {
	rkey    string
	owner   string
	digest  string // of the manifest
	layer   string // digest of the layer
	micros  int64  // in the key
	clockID uint
}

// readLayer reads a layer record; false: it is not one that we write.
func readLayer(r repo.Record) (layerRecord, bool) {
	fields, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		return layerRecord{}, false
	}
	uri, _ := fields["manifest"].(string)
	layer, _ := fields["digest"].(string)
	owner, digest, ok := lexicon.ParseManifestURI(uri)
	key, err := syntax.ParseTID(r.RKey)
	if !ok || err != nil {
		return layerRecord{}, false
	}
	return layerRecord{r.RKey, owner, digest, layer, key.Time().UnixMicro(), key.ClockID()}, true
}

func readOrigin(r repo.Record) (image post.Image, ok bool) {
	fields, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		return post.Image{}, false
	}
	return post.Origin(fields)
}

// eachRecord calls visit with the records of a collection, the lowest key first.
func (n *Notifier) eachRecord(ctx context.Context, collection string, visit func(repo.Record) error) error {
	for cursor := ""; ; {
		page, next, err := n.Publisher.List(collection, cursor, 1000, true)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := visit(r); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return ctx.Err()
		}
	}
}

// pace leaves others the store between two batches of a long run.
func pace(ctx context.Context) error {
	pause(ctx, time.Millisecond)
	return ctx.Err()
}
