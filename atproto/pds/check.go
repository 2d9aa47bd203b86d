package pds

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// CheckService returns an error if a URL is not that of a service.
func CheckService(service string) error {
	_, err := parseService(service)
	return err
}

// CheckIdentifier returns an error if an identifier is neither a handle nor a DID.
func CheckIdentifier(identifier string) error {
	if identifier == "" {
		return errors.New("required; use the handle or the DID of the account, such as images.example.com")
	}
	if _, err := syntax.ParseAtIdentifier(identifier); err != nil {
		return fmt.Errorf("invalid identifier %q: want a handle such as images.example.com, or a DID", identifier)
	}
	return nil
}

// Hostname returns the hostname of a service, "" if its URL is invalid.
func Hostname(service string) string {
	u, err := url.Parse(service)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
