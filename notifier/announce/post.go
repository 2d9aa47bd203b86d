package announce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/describe"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/stored"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// check returns the tags that an announcement still has and that are to be
// announced in addition to earlier posts, or the reason why it is not written.
func (s *Sink) check(ctx context.Context, v *version, before posted.Entries) (tags []string, refused pushrow.Announce, err error) {
	private, err := s.Private.Since(v.Repository, v.Digest, slices.Max(v.Seqs))
	if err != nil {
		return nil, refused, err
	}
	if reason, err := s.removedSince(v.Repository, slices.Max(v.Seqs)); reason != "" || err != nil {
		return nil, pushrow.Announce{Reason: reason}, err
	}
	if private {
		return nil, pushrow.Announce{Reason: reasonPrivate}, nil
	}
	if !s.Public(v.Repository) {
		return nil, pushrow.Announce{Reason: "not public any more"}, nil
	}
	tags = v.Tags
	if v.Local && s.Storage != nil {
		has, err := s.Storage.Has(ctx, v.Repository, v.Digest)
		if err != nil && !errors.Is(err, stored.ErrUnreadable) {
			return nil, refused, err
		}
		if err == nil && !has {
			s.Metrics.Post("deleted")
			return nil, pushrow.Announce{Reason: reasonDeleted}, nil
		}
		if tags, err = s.Storage.TagsOf(ctx, v.Repository, v.Digest, v.Tags); err != nil {
			return nil, refused, err
		}
	}
	if !slices.ContainsFunc(tags, s.Tag) {
		if slices.ContainsFunc(v.Tags, s.Tag) {
			return nil, pushrow.Announce{Reason: reasonTagGone}, nil
		}
		return nil, pushrow.Announce{Reason: ReasonNoTag}, nil
	}
	tags = slices.DeleteFunc(slices.Clone(tags), s.Exclude)
	if tags = s.newTags(tags, before); len(tags) == 0 {
		return nil, s.announcedBefore(before), nil
	}
	return tags, refused, nil
}

// announcedBefore is the result of a push whose digest is not announced again.
func (s *Sink) announcedBefore(before posted.Entries) pushrow.Announce {
	before = before.Live()
	if rkey := before.Last(); rkey != "" {
		return pushrow.Announce{PostURI: s.posts.URI(rkey), Before: true, Reason: "announced before"}
	}
	if before.Withdrawn() {
		return pushrow.Announce{Reason: reasonWithdrawn}
	}
	return pushrow.Announce{Reason: "its announcement was given up before"}
}

// newTags returns the tags of a window that are to be announced after what was
// announced of its digest: all, none, or those that no post names.
func (s *Sink) newTags(tags []string, before posted.Entries) []string {
	before = before.Live()
	if len(before) == 0 {
		return tags
	}
	named := func(tag string) bool {
		return before.Names(func(t string) bool { return t == tag })
	}
	unnamed := slices.DeleteFunc(slices.Clone(tags), named)
	announce := slices.ContainsFunc(unnamed, func(tag string) bool {
		return s.Tag(tag) && (s.Retags || before.Names(func(t string) bool { return versions.IsReleaseOf(tag, t) }))
	})
	if !announce {
		return nil
	}
	return unnamed
}

// tagOrder lists each tag once, in the order of their pushes, except that one which
// is announced comes first: if there is one, one that is no pre-release.
func (s *Sink) tagOrder(tags []string) []string {
	var list []string
	for _, t := range tags {
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	first := slices.IndexFunc(list, func(t string) bool { return s.Tag(t) && !versions.IsPreRelease(t) })
	if first < 0 {
		first = slices.IndexFunc(list, s.Tag)
	}
	if first > 0 {
		tag := list[first]
		copy(list[1:first+1], list[:first])
		list[0] = tag
	}
	return list
}

// addFacts adds the facts of the post that do not depend on the tags, or returns the
// reason why there is no post.
func (s *Sink) addFacts(ctx context.Context, a *announcement, e *event.Event) (reason string, err error) {
	d := describe.Declared(e)
	if s.Storage.Local(e) {
		d, err = describe.Stored(ctx, s.Storage, a.Repository, a.Digest)
	}
	switch {
	case errors.Is(err, stored.ErrNotStored):
		return reasonDeleted, nil
	case errors.Is(err, stored.ErrUnreadable): // what the manifest declares is shown, except its size
		d = describe.Declared(e)
		d.Size = 0
	case err != nil:
		return "", err
	}
	if d.Images == 0 {
		return "an index without an image", nil
	}
	a.Facts = post.Facts{
		Repository: a.Repository, Digest: a.Digest, Size: d.Size, Total: d.Total, Images: d.Images, Layers: d.Layers, LayerSizes: d.LayerSizes, Platforms: d.Platforms,
		First: s.first(ctx, a), Annotations: e.Manifest.Annotations,
	}
	return "", nil
}

// compose writes the post of an announcement. Its key and time are those of the first
// push.
func (s *Sink) compose(a *announcement) error {
	facts := a.Facts
	facts.Tags = s.tagOrder(a.Tags)
	tag := facts.Tags[0]
	if s.Reference != nil {
		facts.Reference = s.Reference(a.Repository, tag)
	}
	facts.Link = s.link(a, tag)
	facts.Hashtags, facts.Mention = s.Hashtags, s.Mention(a.Repository)
	record, err := s.write(facts, time.UnixMicro(a.TID))
	if err != nil {
		return &sink.PermanentError{Err: fmt.Errorf("write post: %w", err)}
	}
	post.SetOrigin(record, post.Image{Repository: a.Repository, Tag: tag, Digest: a.Digest})
	page, preview := s.pageOf(a, facts)
	if page != nil {
		facts.Link = preview.Link
		if err := post.SetPreview(record, preview); err != nil {
			return &sink.PermanentError{Err: err}
		}
	}
	encoded, err := post.Encode(record)
	if err != nil {
		return &sink.PermanentError{Err: err}
	}
	a.Card, a.page, a.Document = s.cardOf(facts), page, nil
	a.Write = repo.Write{Action: repo.Create, Collection: lexicon.NSIDPost, RKey: event.TID(a.TID, a.ClockID), Record: encoded}
	return nil
}

// write writes the post of facts with the template. If that fails, the post has the
// default text.
func (s *Sink) write(facts post.Facts, at time.Time) (map[string]any, error) {
	if s.Template == nil {
		return post.Compose(facts, s.Langs, at)
	}
	record, err := s.Template.Compose(facts, s.Langs, at)
	if errors.Is(err, post.ErrTemplate) {
		s.Log.Warn("a post is written with the default text", "repository", facts.Repository, "tag", facts.Tags[0], "error", err)
		return post.Compose(facts, s.Langs, at)
	}
	return record, err
}

// link is the address that the post points to, "" if there is none or a post can't
// hold it.
func (s *Sink) link(a *announcement, tag string) string {
	if s.Link == nil {
		return ""
	}
	link := s.Link(a.Repository, tag, a.Digest)
	if link == "" {
		return ""
	}
	if err := post.CheckLink(link); err != nil {
		s.Log.Warn("a post is written without its link", "repository", a.Repository, "tag", tag, "error", err)
		return ""
	}
	return link
}

// Origin returns the image that a post announces; false if it is no announcement.
func Origin(r repo.Record) (image post.Image, ok bool) {
	fields, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		return post.Image{}, false
	}
	return post.Origin(fields)
}
