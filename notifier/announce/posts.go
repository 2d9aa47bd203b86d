package announce

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// The posts that the sink has written
//
//	state.Posts      <record key>            postRow, 180 bytes
//	state.PostImages <record key><number>    postImage, 150 bytes, of each further image
//
// The history says what was announced of an image; these rows say which images a post is
// about. They are written in the commit that adds the post to the history and are kept, also
// when the post is deleted. Record keys are TIDs, so the rows are ordered by time.

// A postRow is a post.
type postRow struct {
	Repository string    `json:"repository,omitempty"` // "": the post is a summary
	Digest     string    `json:"digest,omitempty"`
	Tags       []string  `json:"tags,omitempty"`    // that it names, the announced one first
	Versions   int       `json:"versions"`          // that it is about
	Deleted    string    `json:"deleted,omitempty"` // why it was deleted, or is being deleted; "": it is not
	DeletedAt  time.Time `json:"deletedAt,omitzero"`
	Problem    string    `json:"problem,omitempty"` // why the account has refused to delete it
}

// A postImage is an image that a post is about.
type postImage struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Name       string `json:"name,omitempty"` // of its version
}

// Why posts were deleted, in the API.
const (
	DeletedWithdrawn = "withdrawn" // an operator has asked for it
	DeletedImage     = "image"     // its image was deleted
	DeletedOwner     = "owner"     // its image's owner has had its data deleted
	DeletedAccount   = "account"   // the account does not have it, so somebody has deleted it there
)

func postKey(rkey string) []byte { return append([]byte(state.Posts), rkey...) }

func postImageKey(rkey string, number int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(state.PostImages), rkey...), uint32(number))
}

// setJSON sets a row in b.
func setJSON(b *state.Batch, key []byte, row any) error {
	val, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("write announcements: %w", err)
	}
	b.Set(key, val)
	return nil
}

// readPost returns the row of a post as it is after b; false if there is none.
func readPost(db state.Store, b *state.Batch, rkey string) (row postRow, ok bool, err error) {
	ok, err = readJSON(func(key []byte) ([]byte, error) { return b.Get(db, key) }, postKey(rkey), &row)
	return row, ok, err
}

// notePost adds the rows of a post to b.
func (s *Sink) notePost(b *state.Batch, a *announcement) error {
	row := postRow{Versions: a.versions()}
	if !a.isSummary() {
		row.Repository, row.Digest, row.Tags = a.Repository, a.Digest, s.tagOrder(a.Tags)
	}
	for i, v := range a.Others {
		image := postImage{Repository: v.Repository, Digest: v.Digest}
		if len(v.Tags) > 0 {
			image.Name = s.tagOrder(v.Tags)[0]
		}
		if err := setJSON(b, postImageKey(a.Write.RKey, i), image); err != nil {
			return err
		}
	}
	return setJSON(b, postKey(a.Write.RKey), row)
}

// eachImage calls visit with the images of a post until it returns an error, which is
// returned unless it is state.ErrStop.
func eachImage(db state.Store, rkey string, row postRow, visit func(postImage) error) error {
	if row.Repository != "" {
		image := postImage{Repository: row.Repository, Digest: row.Digest}
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
		var image postImage
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
	_, known, err := readPost(db, b, r.RKey)
	if err != nil || known {
		return err
	}
	row := postRow{Repository: image.Repository, Digest: image.Digest, Versions: 1}
	if image.Tag != "" {
		row.Tags = []string{image.Tag}
	}
	return setJSON(b, postKey(r.RKey), row)
}

// noteEarlier adds rows for the posts that earlier versions of the program have written, as
// far as the versions of images name them. It is done once; after a crash it begins again.
func (s *Sink) noteEarlier() (err error) {
	if s.noted {
		return nil
	}
	if s.noted, err = state.Has(s.State, state.PostsListed); err != nil || s.noted {
		return err
	}
	var b state.Batch
	b.DeleteRange(state.Prefix(state.Posts))
	b.DeleteRange(state.Prefix(state.PostImages))
	changes := 0
	err = s.versions.Each(func(v versions.Version) error {
		if v.Post == "" {
			return nil
		}
		if err := s.noteVersion(&b, v); err != nil {
			return err
		}
		if changes++; changes%1000 != 0 {
			return nil
		}
		err := s.State.Commit(&b, state.NoSync)
		b = state.Batch{}
		return err
	})
	if err != nil {
		return err
	}
	b.Set(state.PostsListed, nil)
	if err = s.State.Commit(&b, state.Sync); err == nil {
		s.noted = true
	}
	return err
}

// noteVersion adds a version to the rows of its post.
func (s *Sink) noteVersion(b *state.Batch, v versions.Version) error {
	row, _, err := readPost(s.State, b, v.Post)
	if err != nil {
		return err
	}
	before, err := s.posts.get(v.Repository, v.Digest)
	if err != nil {
		return err
	}
	own := slices.ContainsFunc(before, func(e Entry) bool { return e.RKey == v.Post && !e.Joined })
	if own && row.Repository == "" {
		row.Repository, row.Digest, row.Tags = v.Repository, v.Digest, append([]string{v.Name}, v.Tags...)
	} else if err := setJSON(b, postImageKey(v.Post, row.Versions), postImage{Repository: v.Repository, Digest: v.Digest, Name: v.Name}); err != nil {
		return err
	}
	row.Versions++
	return setJSON(b, postKey(v.Post), row)
}
