package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/state"
)

// An Announcement is a post that the sink has written, in the admin API.
type Announcement struct {
	URI        string    `json:"uri"`
	Time       time.Time `json:"time"`                 // of the first push that it is about
	Repository string    `json:"repository,omitempty"` // "": the post is a summary
	Digest     string    `json:"digest,omitempty"`
	Tags       []string  `json:"tags"` // that it names, the announced one first
	About      string    `json:"about"`
	Versions   int       `json:"versions"`            // that it is about
	Deleted    string    `json:"deleted,omitempty"`   // as in posted.Post; "": it is not
	DeletedAt  time.Time `json:"deletedAt,omitzero"`  // when that was decided; zero: not known
	Deleting   bool      `json:"deleting,omitempty"`  // the account has not confirmed it yet
	Problem    string    `json:"problem,omitempty"`   // why the account has refused to delete it
	Unchecked  string    `json:"unchecked,omitempty"` // why it is not known whether the account has the post
}

// maxExamined is how many rows a page reads to find posts of a repository.
const maxExamined = 5_000

// ErrListCursor is returned for a cursor that List has not returned.
var ErrListCursor = errors.New("this is no cursor of a list of announcements")

// List returns posts, newest first: those about an image of a repository for which match is
// true (nil: all), older than a cursor ("": the newest), at most limit. It reads a limited
// number of rows, so a page may have fewer than there are; next is the cursor of the next
// page, "" if there is none. The account is asked whether it has the posts.
func (s *Sink) List(ctx context.Context, match func(repository string) bool, cursor string, limit int) (page []Announcement, next string, err error) {
	r := state.Prefix(state.Posts)
	r.Reverse = true
	if cursor != "" {
		if _, err := syntax.ParseTID(cursor); err != nil {
			return nil, "", ErrListCursor
		}
		r.To = posted.Key(cursor)
	}
	examined, last := 0, ""
	err = s.State.Scan(r, func(key, val []byte) error {
		if len(page) == limit || examined >= maxExamined {
			next = last
			return state.ErrStop
		}
		examined++
		last = string(key[len(state.Posts):])
		var row posted.Post
		if err := json.Unmarshal(val, &row); err != nil {
			return fmt.Errorf("read announcements: %w", err)
		}
		found, read, err := s.about(last, row, match)
		if examined += read; err == nil && found {
			page = append(page, s.announcementIn(last, row))
		}
		return err
	})
	if err == nil {
		err = s.addDeletions(ctx, page)
	}
	return page, next, err
}

// Announcement returns a post.
func (s *Sink) Announcement(ctx context.Context, uri string) (Announcement, error) {
	rkey, err := s.postIn(uri)
	if err != nil {
		return Announcement{}, err
	}
	row, ok, err := posted.Read(s.State, new(state.Batch), rkey)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s", ErrUnknownPost, uri)
	}
	if err != nil {
		return Announcement{}, err
	}
	page := []Announcement{s.announcementIn(rkey, row)}
	return page[0], s.addDeletions(ctx, page)
}

// about reports whether a post is about a matching repository, and how many more rows it has
// read.
func (s *Sink) about(rkey string, row posted.Post, match func(repository string) bool) (found bool, read int, err error) {
	if match == nil {
		return true, 0, nil
	}
	if row.Repository != "" { // its further versions are of the same repository
		return match(row.Repository), 0, nil
	}
	err = posted.EachImage(s.State, rkey, row, func(image posted.Image) error {
		read++
		if found = match(image.Repository); found {
			return state.ErrStop
		}
		return nil
	})
	return found, read, err
}

func (s *Sink) announcementIn(rkey string, row posted.Post) Announcement {
	a := Announcement{
		URI: s.posts.URI(rkey), Repository: row.Repository, Digest: row.Digest, Tags: slices.Clip(row.Tags), About: "one version", Versions: row.Versions,
		Deleted: row.Deleted, DeletedAt: row.DeletedAt, Problem: row.Problem,
	}
	if tid, err := syntax.ParseTID(rkey); err == nil {
		a.Time = tid.Time().UTC()
	}
	if a.Tags == nil {
		a.Tags = []string{}
	}
	switch more := row.Versions - 1; {
	case row.Repository == "":
		a.About = fmt.Sprintf("summary of %s", versionCount(row.Versions))
	case more > 0:
		a.About = "one version, and " + versionCount(more) + " before it"
	}
	return a
}

func versionCount(n int) string {
	if n == 1 {
		return "1 version"
	}
	return fmt.Sprintf("%d versions", n)
}

// addDeletions adds which posts are being deleted, and which the account does not have.
func (s *Sink) addDeletions(ctx context.Context, page []Announcement) error {
	var live []int // indexes of posts that should exist
	var writes []repo.Write
	for i := range page {
		a := &page[i]
		rkey := syntax.ATURI(a.URI).RecordKey().String()
		if a.Deleted == "" {
			live = append(live, i)
			writes = append(writes, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDPost, RKey: rkey})
			continue
		}
		var err error
		if a.Deleting, err = s.deleting(rkey); err != nil {
			return err
		}
	}
	existing, err := s.deletes.Missing(ctx, writes) // a delete is missing if its record exists
	for k, i := range live {
		switch {
		case err != nil:
			page[i].Unchecked = "the account cannot be read: " + err.Error()
		case !slices.Contains(existing, k):
			page[i].Deleted = posted.DeletedAccount
		}
	}
	return nil
}
