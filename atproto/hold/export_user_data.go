package hold

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// UserData knows whose data this hold has. It is safe for concurrent use.
type UserData interface {
	// HasData reports whether there are records of an account's images. It must be cheap,
	// since anonymous clients can cause a call.
	HasData(did string) (bool, error)
	// DeleteData has all records about an account deleted. When it returns without an
	// error, that is durable; the output counts the records that exist. An *xrpc.Error is
	// sent to the caller, any other becomes a DeletionFailed.
	DeleteData(context.Context, Deletion) (lexicon.DeletedUserData, error)
}

// An export reads all records of three collections, since they are not sorted by account, in
// pages: its memory does not depend on how many there are, and no snapshot of the repo is
// kept open for a slow client. Records that are written meanwhile may be missing.
const (
	userExportTimeout = 10 * time.Minute
	maxUserExports    = 2 // at a time, of different accounts
	userExportPage    = 500
)

// ofOwnData is the access to methods that serve an account its own data. The published
// schema has one error for all invalid tokens.
func (s *Server) ofOwnData(c *xrpc.Call) error {
	return authRequired(s.callers.AuthorizeOwn(c))
}

// authRequired replaces the name of an error that refuses a token.
func authRequired(err error) error {
	var known *xrpc.Error
	if errors.As(err, &known) && known.Status == http.StatusUnauthorized {
		answer := *known
		answer.Name = lexicon.ErrorAuthRequired
		return &answer
	}
	return err
}

// exportUserData is io.atcr.hold.exportUserData: all records about the caller's account. They
// are public already.
func (s *Server) exportUserData(c *xrpc.Call) (any, error) {
	if err := s.requireActive(); err != nil {
		return nil, err
	}
	user := c.Caller.(auth.Caller).DID
	return xrpc.Stream{ContentType: "application/json", Write: func(out io.Writer) error {
		err := s.writeUserData(c.Context(), out, user)
		s.network.metrics.callers.Called(err)
		return err
	}}, nil
}

func (s *Server) writeUserData(ctx context.Context, out io.Writer, user string) error {
	if !s.userExports.acquire(user, maxUserExports) {
		return xrpc.TooManyRequests(exportRetry)
	}
	defer s.userExports.release(user)
	ctx, cancel := context.WithTimeout(ctx, userExportTimeout)
	defer cancel()
	w := &userDataWriter{ctx: ctx, out: bufio.NewWriterSize(contextWriter{ctx, out}, 32<<10), s: s, user: user}
	return w.write()
}

// userDataWriter writes one export.
type userDataWriter struct {
	ctx  context.Context
	out  *bufio.Writer // its errors are sticky: Flush returns the first
	s    *Server
	user string
}

func (w *userDataWriter) write() error {
	head, err := json.Marshal(struct {
		ExportedAt string `json:"exportedAt"`
		HoldDID    string `json:"holdDid"`
		UserDID    string `json:"userDid"`
		IsCaptain  bool   `json:"isCaptain"`
	}{w.s.now().UTC().Format(time.RFC3339), w.s.id.DID, w.user, false})
	if err != nil {
		return err
	}
	_, _ = w.out.Write(head[:len(head)-1])
	for _, list := range []struct {
		member, collection string
		read               func(rkey string, cbor []byte) (any, bool)
	}{
		{"layerRecords", lexicon.NSIDLayer, func(_ string, cbor []byte) (any, bool) { return lexicon.ReadUserLayer(cbor, w.user) }},
		{"statsRecords", lexicon.NSIDStats, func(_ string, cbor []byte) (any, bool) { return lexicon.ReadUserStats(cbor, w.user) }},
		{"blueskyPosts", lexicon.NSIDPost, w.readPost},
	} {
		_, _ = w.out.WriteString(`,"` + list.member + `":[`)
		if err := w.writeList(list.collection, list.read); err != nil {
			return err
		}
		_ = w.out.WriteByte(']')
	}
	_ = w.out.WriteByte('}')
	return w.out.Flush()
}

func (w *userDataWriter) readPost(rkey string, cbor []byte) (any, bool) {
	p, ok := lexicon.ReadUserPost(cbor, w.user)
	p.URI = w.s.uri(lexicon.NSIDPost, rkey)
	return p, ok
}

// writeList writes the items of the user's records in a collection, the oldest first.
func (w *userDataWriter) writeList(collection string, read func(rkey string, cbor []byte) (any, bool)) error {
	first, user := true, []byte(w.user)
	for cursor := ""; ; {
		page, next, err := w.s.repo.List(collection, cursor, userExportPage, true)
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, record := range page {
			if !bytes.Contains(record.Value, user) { // decoding takes longer than that
				continue
			}
			item, ok := read(record.RKey, record.Value)
			if !ok {
				continue
			}
			if err := w.writeItem(item, first); err != nil {
				return err
			}
			first = false
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (w *userDataWriter) writeItem(item any, first bool) error {
	raw, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if !first {
		_ = w.out.WriteByte(',')
	}
	_, err = w.out.Write(raw)
	return err
}

// accountSlots limits calls that take long: one for an account, and few in total.
type accountSlots struct {
	mu    sync.Mutex
	inUse map[string]bool // by DID
}

func (s *accountSlots) acquire(did string, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[did] || len(s.inUse) >= most {
		return false
	}
	if s.inUse == nil {
		s.inUse = map[string]bool{}
	}
	s.inUse[did] = true
	return true
}

func (s *accountSlots) release(did string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, did)
}
