package post

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"
)

// LinkTemplate produces the addresses that posts link to.
type LinkTemplate struct{ template *template.Template }

const linkExample = `use an address such as "https://example.com/{{.Repository}}"`

// ParseLink parses the template of an address, which may use the fields of Image.
// It returns an error if the address of a typical image is invalid. That of
// another image can still be invalid; its post then has no link.
func ParseLink(text string) (*LinkTemplate, error) {
	parsed, err := template.New("link").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse the link: %w; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}", err)
	}
	l := &LinkTemplate{parsed}
	link, err := l.Address(Image{Repository: "oss/app", Tag: "v1.2.3", Digest: "sha256:" + strings.Repeat("0", 64)})
	if err != nil {
		return nil, fmt.Errorf("%w; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}", err)
	}
	if link == "" {
		return l, nil
	}
	if u, err := url.Parse(link); err == nil && u.User != nil {
		return nil, errors.New("the link has a user name or a password, which everybody would read")
	}
	if CheckLink(link) != nil {
		return nil, fmt.Errorf("%q is an invalid link; %s", text, linkExample)
	}
	return l, nil
}

// Address returns the address for an image; empty: no link.
func (l *LinkTemplate) Address(image Image) (string, error) {
	var out strings.Builder
	if err := l.template.Execute(&out, image); err != nil {
		return "", fmt.Errorf("execute the link: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}
