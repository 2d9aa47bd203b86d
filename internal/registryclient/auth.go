package registryclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// authorize sets the authorization for a scope from the challenges of a response: HTTP Basic,
// which distribution's htpasswd asks for, or a token of a token server.
// (https://distribution.github.io/distribution/spec/auth/token/)
func (c *Client) authorize(ctx context.Context, challenges []string, scope string) error {
	for _, challenge := range challenges {
		scheme, text, _ := strings.Cut(challenge, " ")
		scheme, parameters := strings.ToLower(scheme), parse(text)
		if scheme == "bearer" && strings.Contains(parameters["realm"], "://") {
			token, err := c.token(ctx, parameters, scope)
			if err != nil {
				return err
			}
			c.authorization, c.scope = "Bearer "+token, scope
			return nil
		}
		if scheme != "basic" && scheme != "bearer" { // the realm of distribution's silly is no address
			continue
		}
		if c.login.User == "" {
			return c.loginError("401 Unauthorized", nil)
		}
		c.authorization, c.scope = c.basic(), ""
		return nil
	}
	return fmt.Errorf("%w: it asks for %q, and this command knows Basic and Bearer", ErrLogin, challenges)
}

func (c *Client) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.login.User+":"+c.login.Password))
}

var parameter = regexp.MustCompile(`([a-zA-Z_]+)="([^"]*)"`)

// parse returns the parameters of a challenge.
func parse(text string) map[string]string {
	found := map[string]string{}
	for _, m := range parameter.FindAllStringSubmatch(text, -1) {
		found[strings.ToLower(m[1])] = m[2]
	}
	return found
}

// token gets a token from the server that a challenge names. The password goes to a server
// with TLS, or on this machine, only.
func (c *Client) token(ctx context.Context, challenge map[string]string, scope string) (string, error) {
	realm, err := url.Parse(challenge["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "http" && realm.Scheme != "https" {
		return "", fmt.Errorf("%w: its challenge has no address of a token server: %q", ErrLogin, challenge["realm"])
	}
	authorization := ""
	if c.login.User != "" {
		if realm.Scheme == "http" && !local(realm.Hostname()) {
			return "", fmt.Errorf("%w: its token server %s has no TLS, and the password is not sent there", ErrLogin, realm.Host)
		}
		authorization = c.basic()
	}
	query := realm.Query()
	query.Set("service", challenge["service"])
	query.Set("scope", scope)
	realm.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", authorization)
	// The server can be another one than the registry, so it is asked without its transport.
	other := &Client{http: &http.Client{Timeout: timeout, CheckRedirect: c.http.CheckRedirect}}
	res, body, err := other.do(r, authorization)
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		return "", c.loginError("(its token server "+realm.Host+") "+res.Status, body)
	}
	var answer struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get a token from %s: it answered %s", realm.Host, res.Status)
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" && answer.Access == "" {
		return "", fmt.Errorf("get a token from %s: the answer has no token", realm.Host)
	}
	if answer.Token == "" {
		return answer.Access, nil
	}
	return answer.Token, nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
