package announce

import (
	"errors"
	"time"
)

// Config configures the announcements.
type Config struct {
	Tag       func(tag string) bool                             // which tags are announced; nil: all
	Collect   time.Duration                                     // how long further tags of a digest are collected for one post
	MaxAge    time.Duration                                     // older pushes are not announced; 0: 1 h
	Retags    bool                                              // announce each new tag of an announced digest
	Langs     []string                                          // languages of the post's text
	Reference func(repository, tag string) string               // what follows "docker pull"; nil: no such line
	Link      func(repository, tag, digest string) (url string) // of the name; nil or "": none
	Posted    func(uri string, at time.Time)                    // called after a post is written; nil: none
}

func (c Config) withDefaults() (Config, error) {
	if c.Collect < 0 || c.MaxAge < 0 {
		return c, errors.New("collect and max_age must not be negative")
	}
	if c.Tag == nil {
		c.Tag = func(string) bool { return true }
	}
	if c.MaxAge == 0 {
		c.MaxAge = time.Hour
	}
	if c.Posted == nil {
		c.Posted = func(string, time.Time) {}
	}
	return c, nil
}
