package config

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/post"
)

// Announce selects the pushes that become a post.
type Announce struct {
	// Tags lists globs of the tags that are announced. Default: version tags,
	// which are three numbers with or without a v: v1.2.3, 1.2.3. See Match.
	Tags []string `option:"tags"`

	// Exclude lists globs of tags that are not announced, although Tags or the default
	// matches them, and that no post names. Default: none.
	Exclude []string `option:"exclude"`

	// Collect is how long the tags of one image are collected for one post. 0 posts
	// immediately. Default 20s.
	Collect time.Duration `option:"collect"`

	// Cooldown is the shortest time between two posts of a repository. Versions that are
	// pushed in it are in its next post. 0: no cooldown. At most 24h. Default 10m.
	Cooldown time.Duration `option:"cooldown"`

	// DailyLimit is how many posts a day (UTC) has. Further versions are in one more post,
	// a summary, when the next day begins. 0: no limit. Default 50.
	DailyLimit int `option:"daily_limit"`

	// MaxAge is the age after which a push that could not be announced, because of an
	// outage, has no post of its own: all such pushes are in one summary. Default 1h.
	MaxAge time.Duration `option:"max_age"`

	// Retags announces a later tag of an image that was announced before. Default:
	// only a release that follows its own pre-release, v1.0.0 after v1.0.0-rc.1.
	Retags bool `option:"retags"`

	// OnDelete says what happens to the post of an image that is deleted: keep, or delete. See
	// announce.Config.Retract. Default keep.
	OnDelete string `option:"on_delete"`

	// MentionOwner mentions the owner of a repository in its posts, by Options.Owners or
	// Options.Owner, if that is another account than the one that posts. The owner is notified
	// of each post. Default false.
	MentionOwner bool `option:"mention_owner"`

	// Hashtags are added to each post, written without #, at most eight. Default: none.
	Hashtags []string `option:"hashtags"`

	// Link is the address that a post links to, a template with Repository, Tag and
	// Digest: "https://example.com/{{.Repository}}". If the address of a post is
	// invalid, it has no link. Default: none.
	Link string `option:"link"`

	// Card adds a picture to each post, with the name, size, platforms and layers of the
	// image: as the preview of the post's link, or without a link as an image. Default
	// true.
	Card bool `option:"card"`

	// Publication makes the registry a site.standard.publication and each version with a
	// post a document of it: true, or a section. It requires a public https address.
	// Default false.
	Publication *Publication `option:"publication"`

	// Template is the text of posts, a text/template with the data and functions in
	// docs/publishing.md. It is checked with sample facts. Default: a text with the name,
	// tags, size, platforms and pull command.
	Template string `option:"template"`

	// Annotations lists the keys of annotations that Template may use, at most 16. Who
	// pushes an image chooses its annotations. Default: none.
	Annotations []string `option:"annotations"`

	// Langs are the languages of posts, BCP 47, at most three. Default en.
	Langs []string `option:"langs"`

	// AppView is the AppView that is asked whether it has indexed the posts:
	// "https://appview.example.com", or off. Default: see Options.AppView.
	AppView AddressOrOff `option:"appview"`

	// DryRun logs the posts in place of writing them, for trying the other options: their
	// pushes are not remembered as announced. Default false.
	DryRun bool `option:"dry_run"`

	// AnonymousPushes allows announcements although anybody who reaches this registry
	// can push. Required if the registry has no `auth:` and is reachable from other
	// machines, directly or through a proxy for hold.hostname. Default false.
	AnonymousPushes bool `option:"anonymous_pushes"`
}

// ParseTemplate returns the template of posts; nil: the default text.
func (a *Announce) ParseTemplate() (*post.Template, error) {
	if a.Template == "" {
		return nil, nil
	}
	return post.ParseTemplate(a.Template, a.Annotations)
}

// Values of OnDelete.
const (
	keepPosts   = "keep"
	deletePosts = "delete"
)

// DeletesPosts reports whether the post of an image is deleted with the image.
func (a *Announce) DeletesPosts() bool { return a.OnDelete == deletePosts }

func (a *Announce) defaults() {
	a.Collect = 20 * time.Second
	a.Cooldown = announce.DefaultCooldown
	a.DailyLimit = announce.DefaultPerDay
	a.MaxAge = time.Hour
	a.OnDelete = keepPosts
	a.Card = true
	a.Langs = []string{"en"}
}

// versionTag is three numbers, with or without a v. Pre-releases and variants
// (-rc.1, -alpine) do not match: by default few tags are announced.
var versionTag = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`)

// Match reports whether a tag is announced.
func (a *Announce) Match(tag string) bool {
	switch {
	case a.Excluded(tag):
		return false
	case len(a.Tags) == 0:
		return versionTag.MatchString(tag)
	}
	return matchesTag(a.Tags, tag)
}

// Excluded reports whether a tag is neither announced nor named in a post.
func (a *Announce) Excluded(tag string) bool { return matchesTag(a.Exclude, tag) }

func matchesTag(patterns []string, tag string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return glob.MatchTag(pattern, tag) })
}

func (a *Announce) check(m *mistakes) {
	m.check("options.announce.annotations", post.CheckAnnotationKeys(a.Annotations))
	if _, err := a.ParseTemplate(); err != nil && post.CheckAnnotationKeys(a.Annotations) == nil {
		m.add("options.announce.template", err.Error())
	}
	each(m, "options.announce.tags", a.Tags, glob.ValidateTag)
	each(m, "options.announce.exclude", a.Exclude, glob.ValidateTag)
	m.check("options.announce.cooldown", announce.CheckCooldown(a.Cooldown))
	if a.DailyLimit < 0 {
		m.add("options.announce.daily_limit", fmt.Sprintf("%d is negative; use a number of posts, or 0 for no limit", a.DailyLimit))
	}
	if a.OnDelete != keepPosts && a.OnDelete != deletePosts {
		m.add("options.announce.on_delete", fmt.Sprintf("%q is neither keep nor delete", a.OnDelete))
	}
	m.check("options.announce.hashtags", post.CheckHashtags(a.Hashtags))
	_, err := post.ParseLink(a.Link)
	m.check("options.announce.link", err)
	if a.MaxAge <= a.Collect {
		m.add("options.announce.max_age", fmt.Sprintf("%s is not longer than collect, %s; every push would be too old to be announced", a.MaxAge, a.Collect))
	}
	if a.Collect > 24*time.Hour {
		m.add("options.announce.collect", fmt.Sprintf("%s is too long; the maximum is 24h", a.Collect))
	}
	m.check("options.announce.langs", post.CheckLangs(a.Langs))
	if a.Publication != nil {
		a.Publication.check(m)
	}
	if a.AppView != "" {
		m.check("options.announce.appview", appview.Check(string(a.AppView)))
	}
}
