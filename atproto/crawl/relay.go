package crawl

import (
	"net/url"

	"github.com/tidings-dev/tidings/atproto/guard"
)

func parseRelay(text string) (*url.URL, error) {
	return guard.ParseServer(text, "a relay", "https://relay.example.com")
}

// CheckRelay returns an error for an invalid address of a relay.
func CheckRelay(text string) error {
	_, err := parseRelay(text)
	return err
}
