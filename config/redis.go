package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/private"
)

// Redis configures the Redis that sums the counters. `redis: inherit` uses the
// registry's own section.
type Redis struct {
	// Addrs are host:port; several are the nodes of a cluster or, with
	// MasterName, of Sentinel. Required unless inherited.
	Addrs []string `option:"addrs"`

	// Username is the Redis user. Default: none.
	Username string `option:"username"`

	// PasswordFile is the file of the password; a line end after it is ignored. No other
	// user may be able to change it. Default: none.
	PasswordFile string `option:"password_file"`

	// DB is the database number; a cluster has only 0. Default 0.
	DB int `option:"db"`

	// MasterName is the name of the master in Sentinel. Default: no Sentinel.
	MasterName string `option:"master_name"`

	// Name is the name of this installation in Redis. Registries with the same name are
	// summed; those with another name may use the same Redis. At most 64 letters,
	// digits, dots, hyphens and underscores. Default "default".
	Name string `option:"name"`

	// TLS encrypts the connection. `tls: {}` trusts the system's certificate authorities.
	// Default: no TLS.
	TLS *RedisTLS `option:"tls"`

	// Inherit uses the registry's own `redis:` section, with its password and its TLS.
	// Only name can be set as well. `redis: inherit` is short for it. Default false.
	Inherit bool `option:"inherit"`

	registry *configuration.Redis // set by FromRegistry when inherited
}

// RedisTLS encrypts the connection to Redis.
type RedisTLS struct {
	// CAFile has the certificate authorities to trust, PEM. Default: the system's.
	CAFile string `option:"ca_file"`

	// CertFile and KeyFile are the client certificate and its key, PEM; both or neither.
	CertFile string `option:"cert_file"`
	KeyFile  string `option:"key_file"`

	// ServerName is the name in the server's certificate. Default: the address.
	ServerName string `option:"server_name"`
}

// defaultName is the default of Redis.Name.
const defaultName = "default"

func (r *Redis) defaults() { r.Name = defaultName }

// Client returns the options for go-redis' NewUniversalClient. It reads the files that
// the options name, and does not connect.
func (r *Redis) Client() (*redis.UniversalOptions, error) {
	if r.Inherit {
		return inherited(r.registry)
	}
	o := &redis.UniversalOptions{Addrs: r.Addrs, Username: r.Username, DB: r.DB, MasterName: r.MasterName}
	if r.PasswordFile != "" {
		raw, err := private.ReadFile(r.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("options.redis.password_file: %w", err)
		}
		o.Password = strings.TrimRight(string(raw), "\r\n")
	}
	if r.TLS == nil {
		return o, nil
	}
	var cas []string
	if r.TLS.CAFile != "" {
		cas = []string{r.TLS.CAFile}
	}
	t, err := tlsConfig(r.TLS.CertFile, r.TLS.KeyFile, cas)
	if err != nil {
		return nil, fmt.Errorf("options.redis.tls: %w", err)
	}
	t.ServerName = r.TLS.ServerName
	o.TLSConfig = t
	return o, nil
}

// inherited converts the registry's section as the registry does: TLS only if there is a
// certificate, a key or a certificate authority; a certificate without a key is ignored.
// Options that let a cluster client read from replicas are omitted: a sum read from a
// lagging replica could decrease.
func inherited(c *configuration.Redis) (*redis.UniversalOptions, error) {
	if c == nil {
		return nil, fmt.Errorf("options.redis: inherit needs the registry's configuration")
	}
	r := c.Options
	o := &redis.UniversalOptions{
		Addrs: r.Addrs, ClientName: r.ClientName, DB: r.DB, Protocol: r.Protocol,
		Username: r.Username, Password: r.Password,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		MaxRetries: r.MaxRetries, MinRetryBackoff: r.MinRetryBackoff, MaxRetryBackoff: r.MaxRetryBackoff,
		DialTimeout: r.DialTimeout, ReadTimeout: r.ReadTimeout, WriteTimeout: r.WriteTimeout,
		ContextTimeoutEnabled: r.ContextTimeoutEnabled,
		PoolFIFO:              r.PoolFIFO, PoolSize: r.PoolSize, PoolTimeout: r.PoolTimeout,
		MinIdleConns: r.MinIdleConns, MaxIdleConns: r.MaxIdleConns, MaxActiveConns: r.MaxActiveConns,
		ConnMaxIdleTime: r.ConnMaxIdleTime, ConnMaxLifetime: r.ConnMaxLifetime,
		MaxRedirects: r.MaxRedirects,
		MasterName:   r.MasterName, DisableIdentity: r.DisableIdentity, IdentitySuffix: r.IdentitySuffix,
	}
	if c.TLS.Certificate == "" && c.TLS.Key == "" && len(c.TLS.RootCAs) == 0 {
		return o, nil
	}
	certificate, key := c.TLS.Certificate, c.TLS.Key
	if certificate == "" || key == "" {
		certificate, key = "", ""
	}
	t, err := tlsConfig(certificate, key, c.TLS.RootCAs)
	if err != nil {
		return nil, fmt.Errorf("redis.tls: %w", err)
	}
	o.TLSConfig = t
	return o, nil
}

func tlsConfig(certificate, key string, authorities []string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if certificate != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	for _, file := range authorities {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authorities: %w", err)
		}
		if t.RootCAs == nil {
			t.RootCAs = x509.NewCertPool()
		}
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", file)
		}
	}
	return t, nil
}
