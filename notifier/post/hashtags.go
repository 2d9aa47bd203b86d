package post

import "fmt"

// CheckHashtags returns an error unless a post can have all of the hashtags.
func CheckHashtags(names []string) error {
	if len(names) > MaxHashtags {
		return fmt.Errorf("%d hashtags, but a post may have at most %d", len(names), MaxHashtags)
	}
	for _, name := range names {
		if err := CheckHashtag(name); err != nil {
			return err
		}
	}
	return nil
}
