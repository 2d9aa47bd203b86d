package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	proc "github.com/tidings-dev/tidings/internal/process"
)

// network is a proxy that the programs of a test use through environment variables. It
// connects hostname:443 to the hold, with a certificate that the programs trust, and
// refuses everything else. So they resolve our did:web like any other.
type network struct {
	hold      string // address of the hold
	proxy     string // URL
	cert, key string // files
	client    *http.Client
}

func newNetwork(t *testing.T, dir string) *network {
	t.Helper()
	n := &network{hold: freeAddr(t), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	n.proxy = server.URL
	proxy, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	trust.AddCert(certificate(t, n.cert, n.key))
	n.client = &http.Client{Timeout: timeout, Transport: &http.Transport{
		Proxy:           http.ProxyURL(proxy),
		TLSClientConfig: &tls.Config{RootCAs: trust},
	}}
	t.Cleanup(n.client.CloseIdleConnections)
	return n
}

// env returns an environment that makes a program use this network.
func (n *network) env() []string {
	return append(os.Environ(), "HTTPS_PROXY="+n.proxy, "HTTP_PROXY="+n.proxy, "NO_PROXY=", "SSL_CERT_FILE="+n.cert)
}

func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Host != hostname+":443" {
		http.Error(w, "only "+hostname+" exists", http.StatusForbidden)
		return
	}
	far, err := net.Dial("tcp", n.hold)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		io.Copy(far, near)
		far.Close()
	}()
	io.Copy(near, far)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// certificate creates a certificate for hostname and writes it to files.
func certificate(t *testing.T, certFile, keyFile string) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{hostname}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
