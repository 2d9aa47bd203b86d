package stats

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/internal/private"
)

// caller is the client of a request.
type caller struct {
	all     bool                         // whether the request has the token
	visible func(repository string) bool // whether the caller may see a repository
}

// access returns the caller. An invalid token is an error and not treated as anonymous
// access, so that a mistyped token is noticed.
func (a *api) access(w http.ResponseWriter, q *http.Request) (c caller, ok bool) {
	token, given := bearer(q)
	if !given {
		return caller{visible: a.Visible}, true
	}
	want, err := a.token()
	if err != nil {
		a.log.Error("cannot read the API token; requests with a token are refused", "error", err)
	}
	if want == "" || !equal(strings.TrimSpace(token), want) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		fail(w, http.StatusUnauthorized, "AuthenticationRequired", "invalid token: it is not the one in the API token file")
		return caller{}, false
	}
	return caller{all: true, visible: func(string) bool { return true }}, true
}

// bearer returns the bearer token of a request.
func bearer(q *http.Request) (token string, given bool) {
	scheme, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	return token, strings.EqualFold(scheme, "Bearer")
}

// token returns the API token; empty if none is configured.
func (a *api) token() (string, error) {
	if a.TokenFile == "" {
		return "", nil
	}
	b, err := private.ReadFile(a.TokenFile)
	return strings.TrimSpace(string(b)), err
}

// equal compares two tokens in constant time.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
