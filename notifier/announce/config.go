package announce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/publication"
)

// Defaults of the configuration file, and the longest cooldown.
const (
	DefaultCooldown = 10 * time.Minute
	DefaultPerDay   = 50
	maxCooldown     = 24 * time.Hour
)

// CheckCooldown returns an error if a cooldown is not valid.
func CheckCooldown(d time.Duration) error {
	if d < 0 || d > maxCooldown {
		return fmt.Errorf("%s is out of range; it must be from 0 to %s", d, maxCooldown)
	}
	return nil
}

// Config configures the announcements.
type Config struct {
	Tag         func(tag string) bool                             // which tags are announced; nil: all
	Exclude     func(tag string) bool                             // which tags no post names; nil: none
	Collect     time.Duration                                     // how long further tags of a digest are collected for one post
	Cooldown    time.Duration                                     // shortest time between two posts of a repository; 0: none
	PerDay      int                                               // posts of a day (UTC) without summaries; 0: no limit
	MaxAge      time.Duration                                     // older pushes are announced in a summary; 0: 1 h
	Retract     bool                                              // delete the posts of images that are deleted
	Retags      bool                                              // announce each new tag of an announced digest
	Template    *post.Template                                    // of the text; nil: the default text
	Annotations []string                                          // keys of the annotations that Template uses
	Langs       []string                                          // languages of the post's text
	Hashtags    []string                                          // of each post, without "#"
	Mention     func(repository string) post.Mention              // account that the posts of a repository mention; nil: none
	Card        bool                                              // a picture of the image is drawn for each post
	Host        string                                            // of the registry, which pictures show; "": not known
	Reference   func(repository, tag string) string               // what follows "docker pull"; nil: no such line
	Link        func(repository, tag, digest string) (url string) // of the name; nil or "": none
	Site        *publication.Site                                 // has a document of each version with a post; nil: no documents
	Page        func(repository, tag, digest string) (url string) // that shows a version; required with Site
	DryRun      bool                                              // posts are logged and not written
	OwnerOf     func(repository string) (did string)              // of a repository's images, "" if it is not known; nil: never known
	// Counted calls visit with the tags of a repository that were counted, and their
	// pushes, until it returns false; pushes of a tag are to be added up. nil: not known.
	Counted func(ctx context.Context, repository string, visit func(tag string, pushes int64) bool) error
	Posted  func(uri string, at time.Time) // called after a post is written; nil: none
}

func (c Config) withDefaults() (Config, error) {
	if c.Collect < 0 || c.MaxAge < 0 || c.Cooldown < 0 || c.PerDay < 0 {
		return c, errors.New("collect, cooldown, daily_limit and max_age must not be negative")
	}
	if c.Site != nil && c.Page == nil {
		return c, errors.New("documents need pages")
	}
	if c.Tag == nil {
		c.Tag = func(string) bool { return true }
	}
	if c.Exclude == nil {
		c.Exclude = func(string) bool { return false }
	}
	if c.OwnerOf == nil {
		c.OwnerOf = func(string) string { return "" }
	}
	if c.MaxAge == 0 {
		c.MaxAge = time.Hour
	}
	if c.Mention == nil {
		c.Mention = func(string) post.Mention { return post.Mention{} }
	}
	if c.Posted == nil {
		c.Posted = func(string, time.Time) {}
	}
	return c, nil
}
