package post

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"text/template"
	"time"
	"unicode"

	"golang.org/x/net/idna"
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
		return nil, fmt.Errorf("parse the link: %w; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}", explainTemplate(err, Image{}, builtins))
	}
	l := &LinkTemplate{parsed}
	link, err := l.Address(Image{Repository: "oss/app", Tag: "v1.2.3", Digest: "sha256:" + strings.Repeat("0", 64)})
	if err != nil {
		return nil, err
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
		return "", fmt.Errorf("execute the link: %w", explainTemplate(err, image, builtins))
	}
	return strings.TrimSpace(out.String()), nil
}

// maxLink is above the limits of browsers and proxies, and keeps a post small.
const maxLink = 4096

// CheckLink returns an error if address is invalid as the link of a post, according
// to the schema of a post.
func CheckLink(address string) error {
	var b builder
	b.link("link", address)
	record, err := b.record(nil, time.Unix(0, 0))
	if err == nil {
		_, err = Encode(record)
	}
	return err
}

// NormalizeLink returns an address as posts have it.
func NormalizeLink(address string) (string, error) { return asciiLink(address) }

// asciiLink returns an http or https address in ASCII, which every client accepts:
// escaped as in RFC 3986, and the host encoded as in RFC 5891.
func asciiLink(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("invalid URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return "", errors.New("want http://… or https://…")
	}
	if u.User != nil {
		return "", errors.New("it has a user name or a password")
	}
	if u.Host, err = asciiHost(u); err != nil {
		return "", err
	}
	u.RawQuery = escapeQuery(u.RawQuery)
	link := u.String()
	if len(link) > maxLink {
		return "", fmt.Errorf("it has %d bytes; at most %d are allowed", len(link), maxLink)
	}
	return link, nil
}

// asciiHost returns the host with its port, and an internationalized domain name in
// ASCII.
func asciiHost(u *url.URL) (string, error) {
	if isASCII(u.Host) {
		return strings.ToLower(u.Host), nil
	}
	host, err := idna.Lookup.ToASCII(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("invalid hostname %q", u.Hostname())
	}
	if port := u.Port(); port != "" {
		return net.JoinHostPort(host, port), nil
	}
	return host, nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// escapeQuery escapes the characters of a query that url.URL does not escape and RFC
// 3986 does not allow.
func escapeQuery(query string) string {
	var out strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}
