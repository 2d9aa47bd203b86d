package post

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

// maxLink is above the limits of browsers and proxies, and keeps a post small.
const maxLink = 4096

// CheckLink returns an error if address is invalid as the link of a post, according
// to the schema of a post.
func CheckLink(address string) error {
	var b Builder
	b.Link("link", address)
	record, err := b.Record(nil, time.Unix(0, 0))
	if err == nil {
		_, err = Encode(record)
	}
	return err
}

// asciiLink returns an http or https address in ASCII, which every client accepts:
// escaped as in RFC 3986, and the host encoded as in RFC 5891.
func asciiLink(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("not an address")
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
		return "", fmt.Errorf("it has %d bytes, and a link may have %d", len(link), maxLink)
	}
	return link, nil
}

// asciiHost returns the host with its port, an international name in its ASCII
// form.
func asciiHost(u *url.URL) (string, error) {
	if isASCII(u.Host) {
		return strings.ToLower(u.Host), nil
	}
	host, err := idna.Lookup.ToASCII(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("%q is not the name of a host", u.Hostname())
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
