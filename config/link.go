package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"
)

// Link is what the template of announce.link may use.
type Link struct {
	Repository string
	Tag        string
	Digest     string // "sha256:…"
}

// LinkTo is the address that a post about an image points to; empty when
// announce.link was not given.
func (a *Announce) LinkTo(image Link) (string, error) {
	if a.Link == "" {
		return "", nil
	}
	t, err := template.New("link").Option("missingkey=error").Parse(a.Link)
	if err != nil {
		return "", fmt.Errorf("parse the link: %w", err)
	}
	var out strings.Builder
	if err := t.Execute(&out, image); err != nil {
		return "", fmt.Errorf("fill in the link: %w", err)
	}
	return out.String(), nil
}

func (a *Announce) checkLink() error {
	link, err := a.LinkTo(Link{Repository: "oss/app", Tag: "v1.2.3", Digest: "sha256:" + strings.Repeat("0", 64)})
	if err != nil {
		return fmt.Errorf("%w; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}", err)
	}
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf(`%q is not an address people can open; write one like "https://example.com/{{.Repository}}"`, a.Link)
	}
	if u.User != nil {
		return errors.New("has a user name or a password in it; everybody would read it")
	}
	return nil
}
