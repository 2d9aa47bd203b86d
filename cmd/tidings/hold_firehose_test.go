package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/gorilla/websocket"
	"github.com/ipfs/go-cid"
)

// reader subscribes to the firehose during a test. Like a relay it reconnects with the
// last sequence number that it has seen. It checks each commit against the previous
// one, which detects missing, repeated and lost commits.
type reader struct {
	url    string
	key    atcrypto.PublicKey // verifies each commit completely; nil: only the order
	fickle bool               // sometimes disconnects

	mu      sync.Mutex
	seq     int64
	rev     string
	data    cid.Cid
	commits []string          // their CIDs
	kinds   map[string]int    // frames by type
	records map[string]string // CIDs by path
	resumed int
	synced  bool // after a #sync, records is not known
	wrong   []string
}

func newReader(s *server, key atcrypto.PublicKey, fickle bool) *reader {
	return &reader{
		url: "ws://" + s.host + "/xrpc/com.atproto.sync.subscribeRepos?cursor=",
		key: key, fickle: fickle, kinds: map[string]int{}, records: map[string]string{},
	}
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, _, err := websocket.DefaultDialer.DialContext(ctx, r.url+fmt.Sprint(r.at()), nil)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		r.follow(conn)
		stop()
		conn.Close()
	}
}

func (r *reader) at() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// follow reads until the connection ends.
func (r *reader) follow(conn *websocket.Conn) {
	leave := -1
	if r.fickle {
		leave = rand.IntN(200)
	}
	for n := 0; n != leave; n++ {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return
		}
		r.mu.Lock()
		if n == 0 && r.seq != 0 {
			r.resumed++
		}
		if err := r.take(frame); err != nil && len(r.wrong) < 10 {
			r.wrong = append(r.wrong, err.Error())
		}
		r.mu.Unlock()
	}
}

func (r *reader) take(frame []byte) error {
	if bytes.HasPrefix(frame, []byte("\xa1bop\x20")) {
		return fmt.Errorf("error frame: %q", frame)
	}
	n := int(frame[3] & 0x1f)
	kind, body := string(frame[4:4+n]), bytes.NewReader(frame[4+n+4:])
	r.kinds[kind]++
	switch kind {
	case "#identity":
		var m comatproto.SyncSubscribeRepos_Identity
		return r.next(m.UnmarshalCBOR(body), m.Seq)
	case "#account":
		var m comatproto.SyncSubscribeRepos_Account
		return r.next(m.UnmarshalCBOR(body), m.Seq)
	case "#sync":
		var m comatproto.SyncSubscribeRepos_Sync
		if err := m.UnmarshalCBOR(body); err != nil {
			return err
		}
		return errors.Join(r.next(nil, m.Seq), r.sync(&m))
	case "#commit":
		var m comatproto.SyncSubscribeRepos_Commit
		if err := m.UnmarshalCBOR(body); err != nil {
			return err
		}
		if err := r.next(nil, m.Seq); err != nil {
			return err
		}
		return r.commit(&m)
	}
	return fmt.Errorf("unexpected frame %s", kind)
}

func (r *reader) next(err error, seq int64) error {
	if err == nil && seq <= r.seq {
		err = fmt.Errorf("seq %d after %d", seq, r.seq)
	}
	r.seq = max(r.seq, seq)
	return err
}

// sync continues from the state of a #sync, as after a restore. The records are not fetched.
func (r *reader) sync(m *comatproto.SyncSubscribeRepos_Sync) error {
	commit, _, err := indigo.LoadCommitFromCAR(context.Background(), bytes.NewReader(m.Blocks))
	if err != nil || m.Rev == r.rev {
		return err
	}
	if m.Rev < r.rev {
		return fmt.Errorf("seq %d: #sync of %s after %s", m.Seq, m.Rev, r.rev)
	}
	r.rev, r.data, r.synced = m.Rev, commit.Data, true
	return nil
}

func (r *reader) commit(m *comatproto.SyncSubscribeRepos_Commit) error {
	ctx := context.Background()
	commit, root, err := indigo.LoadCommitFromCAR(ctx, bytes.NewReader(m.Blocks))
	if err != nil {
		return fmt.Errorf("seq %d: %w", m.Seq, err)
	}
	follows := r.rev == "" && m.Since == nil && m.PrevData == nil ||
		m.Since != nil && *m.Since == r.rev && m.PrevData != nil && cid.Cid(*m.PrevData) == r.data
	if !follows || m.Rev <= r.rev || m.Rev != commit.Rev || cid.Cid(m.Commit) != *root {
		err = fmt.Errorf("seq %d: %s since %v on %v, after %s %s", m.Seq, m.Rev, m.Since, m.PrevData, r.rev, r.data)
	}
	r.rev, r.data = m.Rev, commit.Data
	r.commits = append(r.commits, root.String())
	for _, op := range m.Ops {
		if before, there := r.records[op.Path]; r.synced {
			continue
		} else if there != (op.Prev != nil) || there && op.Prev.String() != before {
			err = fmt.Errorf("seq %d: %s %s on %v, have %q", m.Seq, op.Action, op.Path, op.Prev, before)
		}
		delete(r.records, op.Path)
		if op.Cid != nil {
			r.records[op.Path] = op.Cid.String()
		}
	}
	if err != nil || r.key == nil {
		return err
	}
	if err := commit.VerifySignature(r.key); err != nil {
		return fmt.Errorf("seq %d: %w", m.Seq, err)
	}
	if _, err := indigo.VerifyCommitMessage(ctx, m); err != nil {
		return fmt.Errorf("seq %d: %w", m.Seq, err)
	}
	return nil
}

// waitForRev waits for a commit and reports all failed checks.
func (r *reader) waitForRev(t *testing.T, rev string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		at := r.rev
		r.mu.Unlock()
		if at == rev {
			break
		}
		if at > rev || time.Now().After(end) {
			t.Errorf("reader at %s, repo at %s", at, rev)
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) > 0 {
		t.Errorf("reader: %s", strings.Join(r.wrong, "\n"))
	}
}

// checkSameCommits compares the commits of two readers.
func (r *reader) checkSameCommits(t *testing.T, other *reader) {
	t.Helper()
	if !slices.Equal(r.commits, other.commits) {
		t.Errorf("readers saw %d and %d commits, and they differ", len(r.commits), len(other.commits))
	}
}
