package stats

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/internal/private"
)

// caller is who asks.
type caller struct {
	all     bool                         // has the token
	visible func(repository string) bool // what the caller may see
}

// access tells who the caller is. A wrong token is an error rather than a look at
// the public part, so that a mistyped one is noticed.
func (a *api) access(w http.ResponseWriter, q *http.Request) (c caller, ok bool) {
	token, given := bearer(q)
	if !given {
		return caller{visible: a.Visible}, true
	}
	want, err := a.token()
	if err != nil {
		a.log.Error("the API token can't be read, so nobody is let in by it", "error", err)
	}
	if want == "" || !equal(strings.TrimSpace(token), want) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		fail(w, http.StatusUnauthorized, "AuthenticationRequired", "this token is not the one in the API token file")
		return caller{}, false
	}
	return caller{all: true, visible: func(string) bool { return true }}, true
}

// bearer is the token that a caller shows.
func bearer(q *http.Request) (token string, given bool) {
	scheme, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	return token, strings.EqualFold(scheme, "Bearer")
}

// token is empty if there is none.
func (a *api) token() (string, error) {
	if a.TokenFile == "" {
		return "", nil
	}
	b, err := private.ReadFile(a.TokenFile)
	return strings.TrimSpace(string(b)), err
}

// equal takes the same time whatever the two have in common.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
