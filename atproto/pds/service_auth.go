package pds

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// ServiceAuth returns a new service token of the account for one call of method at
// another service. The audience is a DID with or without the fragment of a service. The
// PDS lets the token expire after a minute.
func (a *Account) ServiceAuth(ctx context.Context, audience, method string) (string, error) {
	const getServiceAuth = "com.atproto.server.getServiceAuth"
	var out struct {
		Token string `json:"token"`
	}
	if err := a.read(ctx, getServiceAuth, url.Values{"aud": {audience}, "lxm": {method}}, &out); err != nil {
		return "", err
	}
	if strings.Count(out.Token, ".") != 2 || strings.ContainsAny(out.Token, " \r\n") {
		return "", &Error{Method: getServiceAuth, Status: http.StatusOK, Outcome: Unknown, Err: errors.New("the answer has no token")}
	}
	return out.Token, nil
}
