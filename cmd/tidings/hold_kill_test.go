package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
)

// login sets a new password, logs in and returns the header of the session. It needs
// allowLogin.
func (s *server) login() []string {
	s.t.Helper()
	return s.loginWith(s.newPassword())
}

func (s *server) newPassword() string {
	s.t.Helper()
	password, err := s.command("hold", "password", s.config).Output()
	if err != nil {
		s.t.Fatalf("hold password: %v", err)
	}
	return strings.TrimSpace(string(password))
}

func (s *server) loginWith(password string) []string {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"identifier": unescaped(s.did), "password": password})
	res, answer, err := s.do("POST", "/xrpc/com.atproto.server.createSession", "application/json", body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("log in: %v %v %s", res, err, answer)
	}
	var session struct{ AccessJwt string }
	if err := json.Unmarshal(answer, &session); err != nil {
		s.t.Fatal(err)
	}
	return []string{"Authorization", "Bearer " + session.AccessJwt}
}

// allowLogin sets hold.login.
func (s *server) allowLogin() { s.edit("reserve: 1MiB}", "reserve: 1MiB, login: true}") }

func (s *server) publicKey() atcrypto.PublicKey {
	s.t.Helper()
	_, key := s.didDocument()
	return key
}

// writer writes to its own collection and keeps the expected contents.
type writer struct {
	*server
	collection string
	session    []string
	records    map[string]string // expected texts by key, after all answered requests
	pending    map[string]string // the same if the unanswered request was applied; nil: there is none
	answered   []string          // CIDs of the answered commits
	rev        string            // of the last answered commit
	applied    int               // unanswered requests that were applied
	lost       int               // unanswered requests that were not
	texts      int
}

// write sends requests until one is not answered.
func (w *writer) write(answered func()) {
	for w.pending == nil {
		body, after := w.plan()
		res, answer, err := w.do("POST", "/xrpc/com.atproto.repo.applyWrites", "application/json", body, w.session...)
		if err != nil {
			w.pending = after
			return
		}
		var done struct{ Commit struct{ CID, Rev string } }
		if err := json.Unmarshal(answer, &done); err != nil || res.StatusCode != http.StatusOK {
			w.t.Errorf("applyWrites: %s %s", res.Status, answer)
			return
		}
		if done.Commit.Rev <= w.rev {
			w.t.Errorf("rev %s after %s", done.Commit.Rev, w.rev)
		}
		w.records, w.rev = after, done.Commit.Rev
		w.answered = append(w.answered, done.Commit.CID)
		answered()
	}
}

// plan returns a request with one to ten writes, and the expected contents after it.
func (w *writer) plan() (body []byte, after map[string]string) {
	const nsid = "com.atproto.repo.applyWrites"
	after = maps.Clone(w.records)
	var writes []map[string]any
	for _, n := range rand.Perm(30)[:1+rand.IntN(10)] {
		key := fmt.Sprintf("key%02d", n)
		_, there := after[key]
		one := map[string]any{"collection": w.collection, "rkey": key}
		if there && rand.IntN(2) == 0 {
			one["$type"] = nsid + "#delete"
			delete(after, key)
		} else {
			one["$type"] = nsid + "#create"
			if there {
				one["$type"] = nsid + "#update"
			}
			w.texts++
			after[key] = fmt.Sprint(w.texts, strings.Repeat(" and so on", rand.IntN(100)))
			one["value"] = map[string]any{"text": after[key]}
		}
		writes = append(writes, one)
	}
	body, err := json.Marshal(map[string]any{"repo": unescaped(w.did), "writes": writes})
	if err != nil {
		panic(err)
	}
	return body, after
}

// readBack reads the collection after a crash: all answered requests are applied, and
// the unanswered one is applied completely or not at all.
func (w *writer) readBack() {
	w.t.Helper()
	there := map[string]string{}
	for _, r := range w.server.records(w.t, w.did, w.collection) {
		there[r.URI[strings.LastIndexByte(r.URI, '/')+1:]] = r.Value["text"].(string)
	}
	switch {
	case maps.Equal(there, w.records):
		if w.pending != nil {
			w.lost++
		}
	case w.pending != nil && maps.Equal(there, w.pending):
		w.applied++
		w.records = w.pending
	default:
		w.t.Errorf("%s holds %d records, want %d or %d:\n%.300v\n%.300v\n%.300v", w.collection, len(there), len(w.records), len(w.pending), there, w.records, w.pending)
		w.records = there
	}
	w.pending = nil
}

// verifyOffline runs `hold verify` on a stopped server.
func (s *server) verifyOffline() {
	s.t.Helper()
	if out, err := s.command("hold", "verify", s.config).CombinedOutput(); err != nil {
		s.t.Errorf("hold verify: %v\n%s", err, out)
	}
}

// The server is killed repeatedly with eight writers and eight readers of the firehose,
// also while it starts. Every answered request is applied and none partially, sequence
// numbers and revisions only increase, each reader sees every commit once and nothing
// else, and the store is not damaged.
func TestKillHold(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	s.start()
	session, key := s.login(), s.publicKey()

	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	var writers []*writer
	var readers []*reader
	for i := range 8 {
		writers = append(writers, &writer{
			server: s, collection: fmt.Sprintf("com.example.writer%d", i),
			session: session, records: map[string]string{},
		})
		r := newReader(s, nil, i%2 == 1)
		if i == 0 {
			r.key = key
		}
		readers = append(readers, r)
		reading.Go(func() { r.run(ctx) })
	}
	n := rounds(t, 4)
	for round := range n {
		var writing sync.WaitGroup
		var answers atomic.Int64
		enough, fatal := make(chan struct{}), 1+rand.Int64N(300)
		for _, w := range writers {
			writing.Go(func() {
				w.write(func() {
					if answers.Add(1) == fatal {
						close(enough)
					}
				})
			})
		}
		select {
		case <-enough:
		case <-time.After(20 * time.Second):
			t.Errorf("only %d answers", answers.Load())
		}
		s.kill()
		writing.Wait()
		if round%4 == 3 { // and again during the start
			cmd := s.command("serve", s.config)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(400 * time.Millisecond))
			cmd.Process.Kill()
			cmd.Wait()
		}
		if round%20 == 0 {
			s.verifyOffline()
		}
		s.start()
		for _, w := range writers {
			w.readBack()
		}
		if t.Failed() {
			t.Fatalf("in round %d\n%s", round, s.log)
		}
	}

	var latest struct{ CID, Rev string }
	s.json(t, "/xrpc/com.atproto.sync.getLatestCommit?did="+s.did, &latest)
	resumed := 0
	for _, r := range readers {
		r.waitForRev(t, latest.Rev)
		resumed += r.resumed
	}
	cancel()
	reading.Wait()
	full := readers[0]
	for _, r := range readers[1:] {
		r.checkSameCommits(t, full)
	}
	answered, found, lost := 0, 0, 0
	seen := map[string]int{}
	for _, c := range full.commits {
		seen[c]++
	}
	for _, w := range writers {
		answered, found, lost = answered+len(w.answered), found+w.applied, lost+w.lost
		for _, c := range w.answered {
			if seen[c] != 1 {
				t.Errorf("an answered commit was seen %d times", seen[c])
			}
		}
	}
	if want := 1 + answered + found; len(full.commits) != want { // including the profile
		t.Errorf("%d commits, want 1 + %d + %d", len(full.commits), answered, found)
	}
	if full.kinds["#identity"] != 1 || full.kinds["#account"] != 1 || full.kinds["#sync"] != 1 {
		t.Errorf("frames: %v", full.kinds)
	}
	s.checkTree(full.records)
	s.verifyRepo()
	s.stop()
	s.verifyOffline()
	t.Logf("%d rounds: %d requests answered; %d unanswered were applied and %d not; each of 8 readers saw %d commits; %d reconnects in total",
		n, answered, found, lost, len(full.commits), resumed)
}

// checkTree compares the repo's tree with paths and their CIDs.
func (s *server) checkTree(want map[string]string) {
	s.t.Helper()
	_, car, err := s.do("GET", "/xrpc/com.atproto.sync.getRepo?did="+s.did, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, r, err := indigo.LoadRepoFromCAR(s.t.Context(), bytes.NewReader(car))
	if err != nil {
		s.t.Fatal(err)
	}
	got := map[string]string{}
	err = r.MST.Walk(func(path []byte, val cid.Cid) error { got[string(path)] = val.String(); return nil })
	if err != nil || !maps.Equal(got, want) {
		s.t.Errorf("the tree has %d records and the firehose %d, and they differ (%v)", len(got), len(want), err)
	}
}
