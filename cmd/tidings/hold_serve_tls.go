package main

import (
	"crypto/tls"
	"fmt"

	"github.com/distribution/distribution/v3/configuration"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// holdTLS is what the registry's http.tls asks for, nil for plain HTTP.
func holdTLS(c configuration.HTTP) (*tls.Config, error) {
	t := c.TLS
	if t.Certificate == "" && t.LetsEncrypt.CacheFile == "" {
		return nil, nil
	}
	if len(t.ClientCAs) > 0 {
		return nil, fmt.Errorf("http.tls.clientcas: the account is for everybody, and the network has no certificate to show: leave it out, or set http.addr in the options")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch t.MinimumTLS {
	case "", "tls1.2":
	case "tls1.3":
		config.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("http.tls.minimumtls: %q is neither tls1.2 nor tls1.3", t.MinimumTLS)
	}
	if t.LetsEncrypt.CacheFile != "" {
		if t.Certificate != "" {
			return nil, fmt.Errorf("http.tls has both a certificate and letsencrypt: give one of them")
		}
		m := &autocert.Manager{
			HostPolicy: autocert.HostWhitelist(t.LetsEncrypt.Hosts...),
			Cache:      autocert.DirCache(t.LetsEncrypt.CacheFile),
			Email:      t.LetsEncrypt.Email,
			Prompt:     autocert.AcceptTOS,
		}
		if t.LetsEncrypt.DirectoryURL != "" {
			m.Client = &acme.Client{DirectoryURL: t.LetsEncrypt.DirectoryURL}
		}
		config.GetCertificate = m.GetCertificate
		config.NextProtos = append(config.NextProtos, acme.ALPNProto)
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
