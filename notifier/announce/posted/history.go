package posted

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A History remembers for good which digests were announced in which repository:
// about 35 bytes each, and the tags.
//
//	state.Announcements <image hash>   for each announcement a line: the post's record
//	                                   key, or "-" if it was given up, and the tags
//
// A key begins with "+" if the post is that of a newer version or a summary, with "!" if
// the post was deleted with its image, or is being deleted, and with "~" if it was
// withdrawn. Earlier versions wrote the record key alone, or nothing if it was given up.
type History struct {
	db      state.Store
	account string // DID
	noted   bool   // NoteEarlier has nothing to do
}

// NewHistory returns the history in db. account is the DID of the account that has the
// posts.
func NewHistory(db state.Store, account string) *History { return &History{db: db, account: account} }

// Entries are what was announced of one digest in one repository, the oldest first.
type Entries []Entry

// An Entry is one announcement.
type Entry struct {
	RKey      string   // "": it was given up
	Tags      []string // none if an earlier version wrote it
	Joined    bool     // the post is that of a newer version, or a summary; not known once the post is deleted
	Deleted   bool     // the post was deleted with the image, or is being deleted
	Withdrawn bool     // the post was deleted because an operator asked for it, or is being deleted
}

const (
	noPost        = "-"
	joinedPrefix  = "+"
	deletedMark   = "!"
	withdrawnMark = "~"
)

func (es Entries) encode() []byte {
	lines := make([]string, len(es))
	for i, e := range es {
		rkey := e.RKey
		switch {
		case rkey == "":
			rkey = noPost
		case e.Withdrawn:
			rkey = withdrawnMark + rkey
		case e.Deleted:
			rkey = deletedMark + rkey
		case e.Joined:
			rkey = joinedPrefix + rkey
		}
		lines[i] = strings.Join(append([]string{rkey}, e.Tags...), " ")
	}
	return []byte(strings.Join(lines, "\n"))
}

func decodeEntries(val []byte) Entries {
	var es Entries
	for line := range strings.SplitSeq(string(val), "\n") {
		rkey, tags, _ := strings.Cut(line, " ")
		if rkey == noPost {
			rkey = ""
		}
		rkey, withdrawn := strings.CutPrefix(rkey, withdrawnMark)
		rkey, deleted := strings.CutPrefix(rkey, deletedMark)
		rkey, joined := strings.CutPrefix(rkey, joinedPrefix)
		es = append(es, Entry{RKey: rkey, Tags: strings.Fields(tags), Joined: joined, Deleted: deleted, Withdrawn: withdrawn})
	}
	return es
}

// Live are the entries except those whose post was deleted with the image: a later push of
// it is announced like that of a new one.
func (es Entries) Live() Entries {
	return slices.DeleteFunc(slices.Clone(es), func(e Entry) bool { return e.Deleted })
}

// Has reports whether a post is among the entries.
func (es Entries) Has(rkey string) bool {
	return slices.ContainsFunc(es, func(e Entry) bool { return e.RKey == rkey })
}

// Names reports whether an announcement names a tag for which f is true.
func (es Entries) Names(f func(tag string) bool) bool {
	return slices.ContainsFunc(es, func(e Entry) bool { return slices.ContainsFunc(e.Tags, f) })
}

// Withdrawn reports whether a post among the entries was withdrawn.
func (es Entries) Withdrawn() bool {
	return slices.ContainsFunc(es, func(e Entry) bool { return e.Withdrawn })
}

// Last is the record key of the newest post that was not withdrawn, "" if there is none.
func (es Entries) Last() string {
	for _, e := range slices.Backward(es) {
		if e.RKey != "" && !e.Withdrawn {
			return e.RKey
		}
	}
	return ""
}

func (h *History) key(repository, digest string) []byte {
	return state.ImageKey(state.Announcements, repository, digest)
}

// Get returns the history of a digest in a repository, nil if it was not announced.
func (h *History) Get(repository, digest string) (Entries, error) {
	return decodeStored(h.db.Get(h.key(repository, digest)))
}

// Has reports whether a post is in the history of a digest in a repository.
func (h *History) Has(repository, digest, rkey string) (bool, error) {
	before, err := h.Get(repository, digest)
	return before.Has(rkey), err
}

// Live reports whether a post in the history of a digest in a repository is about this
// image, and is not deleted or being deleted.
func (h *History) Live(repository, digest, rkey string) (bool, error) {
	es, err := h.Get(repository, digest)
	return slices.ContainsFunc(es.Live(), func(e Entry) bool { return e.RKey == rkey && !e.Joined && !e.Withdrawn }), err
}

// GetAfter returns the history of a digest as it is after b.
func (h *History) GetAfter(b *state.Batch, repository, digest string) (Entries, error) {
	return decodeStored(b.Get(h.db, h.key(repository, digest)))
}

func decodeStored(val []byte, err error) (Entries, error) {
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read announcements: %w", err)
	}
	return decodeEntries(val), nil
}

// Add adds an announcement to the history as it is after b, unless its post is in it.
func (h *History) Add(b *state.Batch, repository, digest string, e Entry) error {
	key := h.key(repository, digest)
	before, err := decodeStored(b.Get(h.db, key))
	if err != nil || e.RKey != "" && before.Has(e.RKey) {
		return err
	}
	b.Set(key, append(before, e).encode())
	return nil
}

// Account is the DID of the account that has the posts.
func (h *History) Account() string { return h.account }

// URI is the AT URI of a post.
func (h *History) URI(rkey string) string {
	return "at://" + h.account + "/" + lexicon.NSIDPost + "/" + rkey
}

// MarkDeleted notes, as the history is after b, that posts are being deleted with their
// image.
func (h *History) MarkDeleted(b *state.Batch, repository, digest string, rkeys []string) error {
	return h.change(b, repository, digest, func(e *Entry) {
		e.Deleted = e.Deleted || !e.Withdrawn && slices.Contains(rkeys, e.RKey)
	})
}

// Withdraw notes, as the history is after b, that a post was withdrawn.
func (h *History) Withdraw(b *state.Batch, repository, digest, rkey string) error {
	return h.change(b, repository, digest, func(e *Entry) {
		e.Withdrawn = e.Withdrawn || !e.Deleted && e.RKey == rkey
	})
}

// change changes the entries of an image as they are after b.
func (h *History) change(b *state.Batch, repository, digest string, do func(e *Entry)) error {
	key := h.key(repository, digest)
	es, err := decodeStored(b.Get(h.db, key))
	if err != nil || es == nil {
		return err
	}
	for i := range es {
		do(&es[i])
	}
	b.Set(key, es.encode())
	return nil
}

// RemoveRefused removes from the history as it is after b the posts that were given up, so
// that the image can be announced.
func (h *History) RemoveRefused(b *state.Batch, repository, digest string) error {
	key := h.key(repository, digest)
	es, err := decodeStored(b.Get(h.db, key))
	if err != nil || es == nil {
		return err
	}
	es = es.Posted()
	if len(es) == 0 {
		b.Delete(key)
		return nil
	}
	b.Set(key, es.encode())
	return nil
}

// Posted are the entries except those that were given up.
func (es Entries) Posted() Entries {
	return slices.DeleteFunc(slices.Clone(es), func(e Entry) bool { return e.RKey == "" })
}
