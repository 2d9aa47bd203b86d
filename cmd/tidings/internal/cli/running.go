package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/registryclient"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// localTimeout bounds a request to a server on this machine.
const localTimeout = 3 * time.Second

// maxLocalAnswer is how much of such a server's answer is read, in bytes.
const maxLocalAnswer = 64 << 10

// ErrServesTLS means that a server cannot be asked by its address, for which it has no
// certificate.
var ErrServesTLS = errors.New("it serves TLS")

// ServerURL returns the URL on this machine of the server that a configuration file
// describes.
func ServerURL(o *config.Options, path string) (string, error) {
	c, _, err := Load([]string{path})
	if err != nil {
		return "", err
	}
	addr := o.HTTP.Addr
	if addr == "" {
		if tls := c.HTTP.TLS; tls.Certificate != "" || tls.LetsEncrypt.CacheFile != "" {
			return "", ErrServesTLS
		}
		addr = c.HTTP.Addr
	}
	dialed, err := registryclient.Dialed(addr)
	if err != nil {
		return "", fmt.Errorf("it cannot be reached at %q: %w", addr, err)
	}
	return "http://" + dialed, nil
}

// GetJSON asks a server on this machine, with a bearer token unless that is "".
func GetJSON(url, token string, into any) error {
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: localTimeout}
	res, err := client.Do(q)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxLocalAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return json.Unmarshal(body, into)
}

// IsRunning reports whether a server has the data folder open.
func IsRunning(o *config.Options) (bool, error) {
	if !Exists(o.LockFile()) {
		return false, nil
	}
	unlock, err := datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unlock()
}
