package posted

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// The posts that the sink has written
//
//	state.Posts      <record key>            Post, 100 bytes on disk
//	state.PostImages <record key><number>    Image, 95 bytes on disk, of each further image
//
// The history says what was announced of an image; these rows say which images a post is
// about. They are written in the commit that adds the post to the history and are kept, also
// when the post is deleted. Record keys are TIDs, so the rows are ordered by time.

// A Post is a post.
type Post struct {
	Repository string    `json:"repository,omitempty"` // "": the post is a summary
	Digest     string    `json:"digest,omitempty"`
	Tags       []string  `json:"tags,omitempty"`    // that it names, the announced one first
	Versions   int       `json:"versions"`          // that it is about
	Deleted    string    `json:"deleted,omitempty"` // why it was deleted, or is being deleted; "": it is not
	DeletedAt  time.Time `json:"deletedAt,omitzero"`
	Problem    string    `json:"problem,omitempty"` // why the account has refused to delete it
}

// An Image is an image that a post is about.
type Image struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Name       string `json:"name,omitempty"` // of its version
}

// Why posts were deleted, in the API.
const (
	DeletedWithdrawn = "withdrawn" // an operator has asked for it
	DeletedImage     = "image"     // its image was deleted
	DeletedOwner     = "owner"     // its image's owner has had its data deleted
	DeletedPurged    = "purged"    // its image's repository was purged
	DeletedAccount   = "account"   // the account does not have it, so somebody has deleted it there
)

// Deletion says why a post was deleted, such as "withdrawn".
func Deletion(why string) string {
	switch why {
	case DeletedImage:
		return "deleted with its image"
	case DeletedOwner:
		return "deleted with the data of its owner"
	case DeletedPurged:
		return "deleted since its repository was purged"
	case DeletedAccount:
		return "deleted in the account"
	}
	return why
}

// Key is the key of the row of a post.
func Key(rkey string) []byte { return append([]byte(state.Posts), rkey...) }

func imageKey(rkey string, number int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(state.PostImages), rkey...), uint32(number))
}

// Set sets the row of a post in b.
func (row Post) Set(b *state.Batch, rkey string) error { return set(b, Key(rkey), row) }

// Set sets the row of a further image of a post in b. number counts the images of a post.
func (row Image) Set(b *state.Batch, rkey string, number int) error {
	return set(b, imageKey(rkey, number), row)
}

func set(b *state.Batch, key []byte, row any) error {
	if err := b.SetJSON(key, row); err != nil {
		return fmt.Errorf("write announcements: %w", err)
	}
	return nil
}

// Read returns the row of a post as it is after b; false if there is none.
func Read(db state.Store, b *state.Batch, rkey string) (row Post, ok bool, err error) {
	ok, err = state.GetJSON(func(key []byte) ([]byte, error) { return b.Get(db, key) }, Key(rkey), &row)
	if err != nil {
		err = fmt.Errorf("read announcements: %w", err)
	}
	return row, ok, err
}

// EachImage calls visit with the images of a post until it returns an error, which is
// returned unless it is state.ErrStop.
func EachImage(db state.Store, rkey string, row Post, visit func(Image) error) error {
	if row.Repository != "" {
		image := Image{Repository: row.Repository, Digest: row.Digest}
		if len(row.Tags) > 0 {
			image.Name = row.Tags[0]
		}
		if err := visit(image); errors.Is(err, state.ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return db.Scan(state.Prefix(state.PostImages+rkey), func(_, val []byte) error {
		var image Image
		if err := json.Unmarshal(val, &image); err != nil {
			return fmt.Errorf("read the images of a post: %w", err)
		}
		return visit(image)
	})
}

// NoteRebuilt adds the rows of a post of the account that announces an image to b, unless it
// has rows.
func NoteRebuilt(db state.Store, b *state.Batch, r repo.Record, image post.Image) error {
	if _, err := syntax.ParseTID(r.RKey); err != nil {
		return nil // it is not ours
	}
	_, known, err := Read(db, b, r.RKey)
	if err != nil || known {
		return err
	}
	row := Post{Repository: image.Repository, Digest: image.Digest, Versions: 1}
	if image.Tag != "" {
		row.Tags = []string{image.Tag}
	}
	return row.Set(b, r.RKey)
}
