package post

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// A Mention mentions an account, which is notified of the post.
type Mention struct {
	Handle string // "alice.example.com", as the text shows it
	DID    string // of the account
}

// CheckMention returns an error unless a mention has a valid handle and DID.
func CheckMention(m Mention) error {
	if err := lexicon.CheckFormat("handle", m.Handle); err != nil {
		return err
	}
	return lexicon.CheckFormat("did", m.DID)
}

// MaxHashtags is how many hashtags a post can have.
const MaxHashtags = 8

// maxHashtag is the length of a hashtag in graphemes that clients accept, also in their
// own posts.
const maxHashtag = 64

// CheckHashtag returns an error unless name, without "#", is a hashtag that clients
// recognize: letters, digits and underscores, and not only digits.
func CheckHashtag(name string) error {
	if strings.HasPrefix(name, "#") {
		return fmt.Errorf("%q begins with #, which is added; remove it", name)
	}
	if n := graphemes(name); n > maxHashtag || len(name) > 10*maxHashtag {
		return fmt.Errorf("hashtag of %d characters; at most %d are allowed", n, maxHashtag)
	}
	letters := false
	for _, r := range name {
		if r == unicode.ReplacementChar || r != '_' && !unicode.In(r, unicode.L, unicode.M, unicode.Nd) {
			return fmt.Errorf("%q is an invalid hashtag; use letters, digits and underscores", name)
		}
		letters = letters || unicode.IsLetter(r)
	}
	if !letters {
		return errors.New("a hashtag needs at least one letter")
	}
	return nil
}

// validHashtags returns the valid ones of a list, each once, up to MaxHashtags.
func validHashtags(names []string) []string {
	var valid []string
	for _, name := range names {
		if CheckHashtag(name) == nil && !slices.Contains(valid, name) && len(valid) < MaxHashtags {
			valid = append(valid, name)
		}
	}
	return valid
}
