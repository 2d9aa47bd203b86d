package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
)

// askTimeout is how long a server on this machine may take.
const askTimeout = 3 * time.Second

// statusRunning shows what can be known while a server has the repository open.
func statusRunning(say func(string, string, ...any), o *config.Options, path string, cfg repo.Config) error {
	say("server", "running: it has the data folder %s; stop it to see all", o.Data)
	c, _, err := load([]string{path})
	if err != nil {
		return err
	}
	addr := o.HTTP.Addr
	if addr == "" {
		if tls := c.HTTP.TLS; tls.Certificate != "" || tls.LetsEncrypt.CacheFile != "" {
			say("", "it serves TLS; ask it at https://%s/xrpc/_health", o.Hold.Hostname)
			return nil
		}
		addr = c.HTTP.Addr
	}
	base, err := localURL(addr)
	if err != nil {
		say("", "it can't be asked at %q: %v", addr, err)
		return nil
	}
	var list struct { // which tells the head of an account that has moved, too
		Repos []struct{ DID, Head, Rev, Status string }
	}
	if err := ask(base+"/xrpc/com.atproto.sync.listRepos", &list); err != nil {
		say("", "it does not answer: %v", err)
		return nil
	}
	if len(list.Repos) != 1 || list.Repos[0].DID != cfg.DID {
		say("", "it has another account")
		return nil
	}
	say("head", "%s", list.Repos[0].Rev)
	say("", "commit %s", list.Repos[0].Head)
	if status := list.Repos[0].Status; status != "" {
		say("", "it takes no writes: the account is %s here", status)
	}
	if err := ask(base+"/xrpc/_health", &struct{}{}); err != nil {
		say("health", "%v", err)
		return nil
	}
	say("health", "good, it says")
	return statusOfRelays(say, o, cfg.DID, list.Repos[0].Rev)
}

// localURL is where a server that listens at addr is asked on this machine.
func localURL(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return "", err
	case port == "0" || port == "":
		return "", errors.New("the system chose its port")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

func ask(url string, into any) error {
	client := http.Client{Timeout: askTimeout}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return json.Unmarshal(body, into)
}
