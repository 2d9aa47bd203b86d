package registryclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/distribution/distribution/v3/configuration"
)

// Local returns a client of the registry that runs on this machine with a configuration. With
// TLS, the registry has to present the certificate in the configuration.
func Local(c *configuration.Configuration, login Credentials) (*Client, error) {
	network, addr := c.HTTP.Net, c.HTTP.Addr
	if network == "" {
		network = "tcp"
	}
	if network == "tcp" {
		var err error
		if addr, err = dialed(addr); err != nil {
			return nil, fmt.Errorf("the registry cannot be reached at its http.addr %q: %w; name its address with --url", c.HTTP.Addr, err)
		}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	base := url.URL{Scheme: "http", Host: addr}
	if network != "tcp" {
		base.Host = "localhost"
	}
	switch t := c.HTTP.TLS; {
	case t.Certificate != "":
		pinned, err := pin(t.Certificate)
		if err != nil {
			return nil, err
		}
		base.Scheme, transport.TLSClientConfig = "https", pinned
	case t.LetsEncrypt.CacheFile != "":
		return nil, errors.New("the registry gets its certificate from Let's Encrypt: name its address with --url https://…")
	}
	return New(base.JoinPath(c.HTTP.Prefix).String(), transport, login)
}

// dialed returns the address on this machine of a server that listens at addr.
func dialed(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return "", err
	case port == "0" || port == "":
		return "", errors.New("the port was chosen by the system")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

// Remote returns a client of the registry at an address, such as that of a proxy before it.
// A password requires TLS, unless the address is on this machine.
func Remote(address string, login Credentials) (*Client, error) {
	c, err := New(address, nil, login)
	if err == nil && login.User != "" && c.base.Scheme == "http" && !local(c.base.Hostname()) {
		return nil, fmt.Errorf("%s has no TLS, and the password is not sent there; use an address with https", c.base.Host)
	}
	return c, err
}

// pin returns a configuration that accepts the first certificate of a file and no other,
// whatever name it has.
func pin(file string) (*tls.Config, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read http.tls.certificate: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does more
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
				return fmt.Errorf("the server at the registry's address has another certificate than %s", file)
			}
			return nil
		},
	}, nil
}
