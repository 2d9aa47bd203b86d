package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRedisClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("hunter2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate, key := keyPair(t, dir)

	o, err := (&Redis{Addrs: []string{"a:1"}, Username: "u", PasswordFile: password, DB: 2, MasterName: "m"}).Client()
	if err != nil || fmt.Sprintln(o.Addrs, o.Username, o.Password, o.DB, o.MasterName) != "[a:1] u hunter2 2 m\n" || o.TLSConfig != nil {
		t.Errorf("got %+v, %v", o, err)
	}
	o, err = (&Redis{Addrs: []string{"a:1"}, TLS: &RedisTLS{}}).Client()
	if err != nil || o.TLSConfig == nil || o.TLSConfig.RootCAs != nil || len(o.TLSConfig.Certificates) != 0 {
		t.Errorf("TLS with the system's authorities: got %+v, %v", o, err)
	}
	o, err = (&Redis{Addrs: []string{"a:1"}, TLS: &RedisTLS{CAFile: certificate, CertFile: certificate, KeyFile: key, ServerName: "s"}}).Client()
	if err != nil || o.TLSConfig.RootCAs == nil || len(o.TLSConfig.Certificates) != 1 || o.TLSConfig.ServerName != "s" {
		t.Errorf("TLS with all options: got %+v, %v", o, err)
	}

	open := filepath.Join(dir, "open")
	if err := errors.Join(os.WriteFile(open, []byte("hunter2"), 0o600), os.Chmod(open, 0o602)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		redis *Redis
		want  string
	}{
		"open to others":      {&Redis{PasswordFile: open}, "options.redis.password_file: " + open + " can be changed by other users (mode 0602): chmod 600 "},
		"no password file":    {&Redis{PasswordFile: filepath.Join(dir, "none")}, "options.redis.password_file: open "},
		"no CA file":          {&Redis{TLS: &RedisTLS{CAFile: filepath.Join(dir, "none")}}, "options.redis.tls: read the certificate authorities: open "},
		"invalid CA file":     {&Redis{TLS: &RedisTLS{CAFile: password}}, "has no certificate in PEM form"},
		"mismatched pair":     {&Redis{TLS: &RedisTLS{CertFile: key, KeyFile: certificate}}, "options.redis.tls: load the client certificate: "},
		"before FromRegistry": {&Redis{Inherit: true}, "inherit needs the registry's configuration"},
	} {
		if _, err := tc.redis.Client(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestRedisName(t *testing.T) {
	t.Parallel()
	const registry = `redis: {addrs: ["a:1"]}`
	for options, want := range map[string]string{
		"redis: inherit":                              "default",
		"redis: {inherit: true}":                      "default",
		"redis: {inherit: true, name: blue}":          "blue",
		"redis: {addrs: [\"b:1\"]}":                   "default",
		"redis: {addrs: [\"b:1\"], name: green-1.x_}": "green-1.x_",
	} {
		if got := mustRead(t, "data: /d\n"+options, registry).Redis; got.Name != want || got.Inherit != strings.Contains(options, "inherit") {
			t.Errorf("%s: got name %q, inherit %v; want %q", options, got.Name, got.Inherit, want)
		}
	}
}

func TestInheritWithOptions(t *testing.T) {
	t.Parallel()
	_, _, err := FromRegistry(registry(t, "data: /d\nredis: {inherit: true, db: 3}", `redis: {addrs: ["a:1"]}`))
	const want = "options.redis.inherit: uses the registry's whole redis section; only name can be set as well"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestInheritedRedis(t *testing.T) {
	t.Parallel()
	certificate, key := keyPair(t, t.TempDir())
	const options = "data: /d\nredis: inherit"

	o, err := mustRead(t, options, `redis: {addrs: ["a:1", "b:1"], username: u, password: hunter2, db: 4, mastername: m,
  sentinelpassword: s, dialtimeout: 3s, poolsize: 7, readonly: true, routebylatency: true}`).Redis.Client()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(o.Addrs, o.Username, o.Password, o.DB, o.MasterName, o.SentinelPassword, o.DialTimeout, o.PoolSize); got != "[a:1 b:1] u hunter2 4 m s 3s 7\n" {
		t.Errorf("got %s", got)
	}
	if o.ReadOnly || o.RouteByLatency || o.TLSConfig != nil {
		t.Errorf("got ReadOnly %v, RouteByLatency %v, TLS %v; want none", o.ReadOnly, o.RouteByLatency, o.TLSConfig)
	}

	o, err = mustRead(t, options, fmt.Sprintf("redis: {addrs: [\"a:1\"], tls: {certificate: %s, key: %s, rootcas: [%s]}}", certificate, key, certificate)).Redis.Client()
	if err != nil || len(o.TLSConfig.Certificates) != 1 || o.TLSConfig.RootCAs == nil {
		t.Errorf("inherited TLS: %+v, %v", o, err)
	}
	o, err = mustRead(t, options, "redis: {addrs: [\"a:1\"], tls: {certificate: /none}}").Redis.Client()
	if err != nil || o.TLSConfig == nil || len(o.TLSConfig.Certificates) != 0 {
		t.Errorf("certificate without a key: got %+v, %v; want TLS without a certificate, as in the registry", o, err)
	}
	_, err = mustRead(t, options, "redis: {addrs: [\"a:1\"], tls: {rootcas: [/none]}}").Redis.Client()
	if err == nil || !strings.Contains(err.Error(), "redis.tls: read the certificate authorities") {
		t.Errorf("missing CA file: got %v", err)
	}
}

func keyPair(t *testing.T, dir string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}
