package hold

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/private"
)

const (
	// refreshGrace is how long a refresh token that was used stays good, so
	// that a client which lost the answer may ask again.
	refreshGrace = 2 * time.Hour

	// maxGrants is how many refresh tokens are good at a time. The one that
	// ends first makes room.
	maxGrants = 1000

	maxSessionsFile = 1 << 20
)

// sessions keeps which refresh tokens are good, in a file beside the
// password's. Tokens of sessions that it does not know are revoked.
type sessions struct {
	file string

	mu     sync.Mutex
	grants map[string]grant // by the refresh token's id
}

// grant is one refresh token that is good.
type grant struct {
	Session string    `json:"session"`        // shared by all tokens of one login
	Expires time.Time `json:"expires"`        // earlier than the token's own, once it was used
	Next    string    `json:"next,omitempty"` // the token that follows, once it was used
}

var errRevoked = xrpc.NewError(400, "ExpiredToken", "Token has been revoked")

// openSessions reads the file. One that cannot be understood ends the sessions
// in it, which costs a login.
func openSessions(file string, lg *slog.Logger) (*sessions, error) {
	s := &sessions{file: file, grants: map[string]grant{}}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, maxSessionsFile)).Decode(&s.grants)
	if err != nil || s.grants == nil {
		lg.Warn("the file of sessions is damaged: all have to log in again", "file", file, "error", err)
		s.grants = map[string]grant{}
	}
	return s, nil
}

// begin starts a session and names it and its first refresh token.
func (s *sessions) begin(now time.Time) (session, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, id = rand.Text(), rand.Text()
	grants := s.good(now)
	grants[id] = grant{Session: session, Expires: now.Add(refreshToken.life)}
	return session, id, s.keep(grants)
}

// rotate uses a refresh token up, but for the grace, and names the one that
// follows: the same one however often it is asked.
func (s *sessions) rotate(id string, now time.Time) (session, next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := s.good(now)
	used, ok := grants[id]
	if !ok {
		return "", "", errRevoked
	}
	next = used.Next
	if next == "" {
		next = rand.Text()
	}
	if until := now.Add(refreshGrace); until.Before(used.Expires) {
		used.Expires = until
	}
	used.Next = next
	grants[id] = used
	if _, ok := grants[next]; !ok {
		grants[next] = grant{Session: used.Session, Expires: now.Add(refreshToken.life)}
	}
	return used.Session, next, s.keep(grants)
}

// end revokes all tokens of a session. Ending one twice is done.
func (s *sessions) end(session string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := s.good(now)
	maps.DeleteFunc(grants, func(_ string, g grant) bool { return g.Session == session })
	return s.keep(grants)
}

// alive says whether a session has a refresh token that is good.
func (s *sessions) alive(session string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.Session == session && now.Before(g.Expires) {
			return true
		}
	}
	return false
}

// good is a copy of those that have not expired.
func (s *sessions) good(now time.Time) map[string]grant {
	grants := maps.Clone(s.grants)
	maps.DeleteFunc(grants, func(_ string, g grant) bool { return !now.Before(g.Expires) })
	return grants
}

// keep makes grants durable before they count.
func (s *sessions) keep(grants map[string]grant) error {
	if extra := len(grants) - maxGrants; extra > 0 {
		ids := slices.SortedFunc(maps.Keys(grants), func(a, b string) int {
			return cmp.Or(grants[a].Expires.Compare(grants[b].Expires), cmp.Compare(a, b))
		})
		for _, id := range ids[:extra] {
			delete(grants, id)
		}
	}
	content, err := json.Marshal(grants)
	if err != nil {
		return fmt.Errorf("store sessions: %w", err)
	}
	if err := private.ReplaceFile(s.file, append(content, '\n')); err != nil {
		return fmt.Errorf("store sessions: %w", err)
	}
	s.grants = grants
	return nil
}
