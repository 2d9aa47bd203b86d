package registryclient

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/silly"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"
)

// serve serves distribution's registry, and returns its address.
func serve(t *testing.T, change func(c *configuration.Configuration)) *httptest.Server {
	t.Helper()
	c := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory": {}, "delete": {"enabled": true}, "maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	c.Log.Level, c.Log.AccessLog.Disabled = "fatal", true
	c.HTTP.Secret = "secret"
	change(c)
	s := httptest.NewServer(handlers.NewApp(context.Background(), c))
	t.Cleanup(s.Close)
	return s
}

var missing = digest.FromString("missing").String()

func TestDelete(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, append([]byte("admin:"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	htpasswd := func(c *configuration.Configuration) {
		c.Auth = configuration.Auth{"htpasswd": {"realm": "r", "path": users}}
	}
	for name, test := range map[string]struct {
		change func(*configuration.Configuration)
		login  Credentials
		want   error
	}{
		"open":            {func(*configuration.Configuration) {}, Credentials{}, ErrNotFound},
		"prefix":          {func(c *configuration.Configuration) { c.HTTP.Prefix = "/registry/" }, Credentials{}, ErrNotFound},
		"not enabled":     {func(c *configuration.Configuration) { delete(c.Storage, "delete") }, Credentials{}, ErrDisabled},
		"read-only":       {readOnly, Credentials{}, ErrDisabled},
		"no password":     {htpasswd, Credentials{}, ErrLogin},
		"wrong password":  {htpasswd, Credentials{"admin", "wrong"}, ErrLogin},
		"right password":  {htpasswd, Credentials{"admin", "right"}, ErrNotFound},
		"silly":           {silly, Credentials{"admin", "any"}, ErrNotFound},
		"silly, no login": {silly, Credentials{}, ErrLogin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var prefix string
			s := serve(t, func(c *configuration.Configuration) { test.change(c); prefix = c.HTTP.Prefix })
			c, err := New(s.URL+prefix, nil, test.login)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second has the authorization
				if err := c.Delete(t.Context(), "oss/app", missing); !errors.Is(err, test.want) || strings.Contains(err.Error(), "wrong") {
					t.Errorf("Delete = %v, want %v", err, test.want)
				}
			}
		})
	}
}

func readOnly(c *configuration.Configuration) {
	c.Storage["maintenance"]["readonly"] = map[any]any{"enabled": true}
}

func silly(c *configuration.Configuration) {
	c.Auth = configuration.Auth{"silly": {"realm": "r", "service": "s"}}
}

// tokenRegistry accepts tokens of its own token server, for one repository each.
func tokenRegistry(t *testing.T) (address string, issued *int) {
	issued = new(int)
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "admin" || password != "right" || r.FormValue("service") != "registry" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		*issued++
		_ = json.NewEncoder(w).Encode(map[string]string{"token": r.FormValue("scope")})
	})
	mux.HandleFunc("DELETE /v2/", func(w http.ResponseWriter, r *http.Request) {
		repository, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
		if r.Header.Get("Authorization") != "Bearer repository:"+repository+":delete" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="registry",scope="repository:`+repository+`:delete"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return s.URL, issued
}

func TestToken(t *testing.T) {
	t.Parallel()
	address, issued := tokenRegistry(t)
	c, err := New(address, nil, Credentials{"admin", "right"})
	if err != nil {
		t.Fatal(err)
	}
	for _, repository := range []string{"oss/app", "oss/app", "oss/other"} {
		if err := c.Delete(t.Context(), repository, "v1"); err != nil {
			t.Error(err)
		}
	}
	if *issued != 2 {
		t.Errorf("%d tokens for two repositories", *issued)
	}
	for _, login := range []Credentials{{}, {"admin", "wrong"}} {
		c, _ := New(address, nil, login)
		if err := c.Delete(t.Context(), "oss/app", "v1"); !errors.Is(err, ErrLogin) {
			t.Errorf("Delete as %q = %v, want ErrLogin", login.User, err)
		}
	}
}

// TestLocal: with TLS only the server with the configured certificate is the registry.
func TestLocal(t *testing.T) {
	t.Parallel()
	gone := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	s := httptest.NewTLSServer(gone)
	t.Cleanup(s.Close)
	var c configuration.Configuration
	c.HTTP.Addr = s.Listener.Addr().String()
	c.HTTP.TLS.Certificate = filepath.Join(t.TempDir(), "cert.pem")
	write := func(raw []byte) {
		t.Helper()
		if err := os.WriteFile(c.HTTP.TLS.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(s.Certificate().Raw)
	client, err := Local(&c, Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "oss/app", "v1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("with the certificate: %v", err)
	}
	other := append([]byte(nil), s.Certificate().Raw...)
	other[len(other)-1] ^= 1 // in the signature
	write(other)
	if client, err = Local(&c, Credentials{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "oss/app", "v1"); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("with another certificate: %v", err)
	}
	c.HTTP.TLS = configuration.TLS{}
	for _, addr := range []string{"", ":0", "localhost"} {
		c.HTTP.Addr = addr
		if _, err := Local(&c, Credentials{}); err == nil {
			t.Errorf("http.addr %q is accepted", addr)
		}
	}
}

// TestRemote: a password is not sent without TLS.
func TestRemote(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"https://registry.example.com": true, "http://registry.example.com": false, "http://127.0.0.1:5000": true, "registry.example.com": false, "ftp://x": false,
	} {
		if _, err := Remote(address, Credentials{"admin", "right"}); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
