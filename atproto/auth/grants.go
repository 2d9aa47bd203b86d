package auth

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

	"github.com/tidings-dev/tidings/internal/private"
)

const (
	// refreshGrace is how long a refresh token stays valid after its first use,
	// so that a client that lost the response can repeat the request.
	refreshGrace = 2 * time.Hour

	// maxGrants limits the valid refresh tokens. The one that expires first is
	// removed for a new one.
	maxGrants = 1000

	maxGrantsFile = 1 << 20 // bytes
)

// grants are the valid refresh tokens, kept in a file next to the password's. A
// session is alive as long as it has one; all other tokens are revoked.
//
// A refresh token is exchanged for its successor. The successor is in the file
// before it is sent, so that it is valid after a crash. A client that did not get
// the response, because of a crash or a lost connection, repeats the request with
// the old token, which is valid for refreshGrace longer, and gets the same
// successor: a session never forks.
type grants struct {
	file string

	mu   sync.Mutex
	byID map[string]grant // by the refresh token's jti
}

// grant is one valid refresh token.
type grant struct {
	Session string    `json:"session"`        // common to all tokens of one login
	Expires time.Time `json:"expires"`        // after the first use, earlier than the token's own expiry
	Next    string    `json:"next,omitempty"` // after the first use: the successor
}

// openGrants reads the file. If it is damaged its sessions end, and clients have to
// log in again.
func openGrants(file string, lg *slog.Logger) (*grants, error) {
	g := &grants{file: file, byID: map[string]grant{}}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, maxGrantsFile)).Decode(&g.byID)
	if err != nil || g.byID == nil {
		lg.Warn("the session file is damaged; clients have to log in again", "file", file, "error", err)
		g.byID = map[string]grant{}
	}
	return g, nil
}

// begin starts a session and returns the IDs of the session and of its first
// refresh token.
func (g *grants) begin(now time.Time) (session, id string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	session, id = rand.Text(), rand.Text()
	all := g.valid(now)
	all[id] = grant{Session: session, Expires: now.Add(refreshToken.life)}
	return session, id, g.store(all)
}

// rotate returns the session of a refresh token and the ID of the successor, which
// is the same at each call. The token expires after refreshGrace.
func (g *grants) rotate(id string, now time.Time) (session, next string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.valid(now)
	used, ok := all[id]
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
	all[id] = used
	if _, ok := all[next]; !ok {
		all[next] = grant{Session: used.Session, Expires: now.Add(refreshToken.life)}
	}
	return used.Session, next, g.store(all)
}

// end revokes all tokens of a session. It may be called twice.
func (g *grants) end(session string, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.valid(now)
	maps.DeleteFunc(all, func(_ string, g grant) bool { return g.Session == session })
	return g.store(all)
}

// alive reports whether a session has a valid refresh token.
func (g *grants) alive(session string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.byID {
		if one.Session == session && now.Before(one.Expires) {
			return true
		}
	}
	return false
}

// valid returns a copy of the grants that have not expired.
func (g *grants) valid(now time.Time) map[string]grant {
	all := maps.Clone(g.byID)
	maps.DeleteFunc(all, func(_ string, g grant) bool { return !now.Before(g.Expires) })
	return all
}

// store writes the file and then uses the grants: a token is not issued before it is
// durable.
func (g *grants) store(all map[string]grant) error {
	if extra := len(all) - maxGrants; extra > 0 {
		ids := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
			return cmp.Or(all[a].Expires.Compare(all[b].Expires), cmp.Compare(a, b))
		})
		for _, id := range ids[:extra] {
			delete(all, id)
		}
	}
	content, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("store sessions: %w", err)
	}
	if err := private.ReplaceFile(g.file, append(content, '\n')); err != nil {
		return fmt.Errorf("store sessions: %w", err)
	}
	g.byID = all
	return nil
}
