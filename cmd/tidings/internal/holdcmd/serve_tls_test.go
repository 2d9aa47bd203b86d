package holdcmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
)

// certificate creates a certificate for localhost.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestHoldTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	for _, tc := range []struct {
		name string
		set  func(c *configuration.HTTP)
		want string // "": plain, "tls", or the error
	}{
		{"nothing", func(*configuration.HTTP) {}, ""},
		{"a certificate", func(c *configuration.HTTP) { c.TLS.Certificate, c.TLS.Key = cert, key }, "tls"},
		{"only 1.3", func(c *configuration.HTTP) { c.TLS.Certificate, c.TLS.Key, c.TLS.MinimumTLS = cert, key, "tls1.3" }, "tls"},
		{"Let's Encrypt", func(c *configuration.HTTP) { c.TLS.LetsEncrypt.CacheFile = t.TempDir() }, "tls"},
		{"both", func(c *configuration.HTTP) { c.TLS.Certificate, c.TLS.LetsEncrypt.CacheFile = cert, "x" }, "configure one of them"},
		{"no such file", func(c *configuration.HTTP) { c.TLS.Certificate = "none.pem" }, "http.tls: open none.pem"},
		{"an old version", func(c *configuration.HTTP) { c.TLS.Certificate, c.TLS.MinimumTLS = cert, "tls1.0" }, `"tls1.0" is neither`},
		{"client certificates", func(c *configuration.HTTP) { c.TLS.Certificate, c.TLS.ClientCAs = cert, []string{"ca.pem"} }, "http.tls.clientcas"},
	} {
		var c configuration.HTTP
		tc.set(&c)
		config, err := holdTLS(c)
		switch {
		case tc.want == "" || tc.want == "tls":
			if err != nil || (config != nil) != (tc.want == "tls") {
				t.Errorf("%s: %v, %v", tc.name, config, err)
			}
		case err == nil || !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}

	var c configuration.HTTP
	c.TLS.Certificate, c.TLS.Key, c.TLS.MinimumTLS = cert, key, "tls1.3"
	config, err := holdTLS(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = config
	server.StartTLS()
	defer server.Close()
	for version, works := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if (err == nil) != works {
			t.Errorf("with TLS %x: %v", version, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
