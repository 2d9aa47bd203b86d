package hold

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/identity"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/gorilla/websocket"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// subscriber is a client of the firehose.
type subscriber struct {
	testing.TB
	*websocket.Conn
}

func (h *testHold) subscribe(query string) *subscriber {
	h.Helper()
	socket, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.URL, "http")+"/xrpc/com.atproto.sync.subscribeRepos"+query, nil)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { socket.Close() })
	return &subscriber{h.TB, socket}
}

// next reads a frame and returns its kind, or "error", and its body.
func (s *subscriber) next() (kind string, body []byte) {
	s.Helper()
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, frame, err := s.ReadMessage()
	if err != nil {
		s.Fatal(err)
	}
	if body, ok := bytes.CutPrefix(frame, []byte("\xa1bop\x20")); ok {
		return "error", body
	}
	n := int(frame[3] & 0x1f)
	if want := "\xa2at" + string(frame[3:4+n]) + "bop\x01"; !bytes.HasPrefix(frame, []byte(want)) {
		s.Fatalf("header of %.30q", frame)
	}
	return string(frame[4 : 4+n]), frame[4+n+4:]
}

func decode[T any, P interface {
	*T
	cbg.CBORUnmarshaler
}](t testing.TB, body []byte) P {
	t.Helper()
	msg, in := P(new(T)), bytes.NewReader(body)
	if err := msg.UnmarshalCBOR(in); err != nil || in.Len() != 0 {
		t.Fatalf("%T: %v, %d bytes too many", msg, err, in.Len())
	}
	return msg
}

// observer verifies every frame of one stream with indigo, and that it follows
// from the frames before it.
type observer struct {
	*subscriber
	did       string
	directory identity.Directory
	seq       int64
	rev       string
	data      cid.Cid // root of the tree; Undef: unknown
	kinds     []string
	records   map[string]string // CIDs by path
}

func (h *testHold) observe(query string) *observer {
	h.Helper()
	mock := identity.NewMockDirectory()
	mock.Insert(identity.Identity{
		DID: syntax.DID(h.DID), Handle: syntax.Handle(testHost),
		Keys: map[string]identity.VerificationMethod{"atproto": {Type: "Multikey", PublicKeyMultibase: h.publicKey().Multibase()}},
	})
	return &observer{subscriber: h.subscribe(query), did: h.DID, directory: mock, records: map[string]string{}}
}

// follow reads and verifies frames up to a sequence number.
func (o *observer) follow(to uint64) {
	o.Helper()
	for o.seq < int64(to) {
		kind, body := o.next()
		o.kinds = append(o.kinds, kind)
		before := o.seq
		switch kind {
		case "#identity":
			msg := decode[comatproto.SyncSubscribeRepos_Identity](o, body)
			o.header(msg.Did, msg.Seq, msg.Time)
			if msg.Handle == nil || *msg.Handle != testHost {
				o.Errorf("handle %v", msg.Handle)
			}
		case "#account":
			msg := decode[comatproto.SyncSubscribeRepos_Account](o, body)
			o.header(msg.Did, msg.Seq, msg.Time)
			if !msg.Active || msg.Status != nil {
				o.Errorf("account is %v, %v", msg.Active, msg.Status)
			}
		case "#sync":
			o.sync(decode[comatproto.SyncSubscribeRepos_Sync](o, body))
		case "#commit":
			o.commit(decode[comatproto.SyncSubscribeRepos_Commit](o, body))
		default:
			o.Fatalf("unexpected frame %s", kind)
		}
		if o.seq <= before {
			o.Fatalf("%s with seq %d after %d", kind, o.seq, before)
		}
	}
}

func (o *observer) header(did string, seq int64, at string) {
	o.Helper()
	if _, err := syntax.ParseDatetime(at); err != nil || did != o.did {
		o.Errorf("event of %s at %s: %v", did, at, err)
	}
	o.seq = seq
}

func (o *observer) sync(msg *comatproto.SyncSubscribeRepos_Sync) {
	o.Helper()
	o.header(msg.Did, msg.Seq, msg.Time)
	commit, err := indigo.VerifySyncMessage(context.Background(), o.directory, msg)
	if err != nil {
		o.Fatal(err)
	}
	if commit.Rev != msg.Rev || o.rev != "" && (msg.Rev != o.rev || commit.Data != o.data) {
		o.Errorf("#sync has %s %s, the commits have %s %s", msg.Rev, commit.Data, o.rev, o.data)
	}
	o.rev, o.data = msg.Rev, commit.Data
}

func (o *observer) commit(msg *comatproto.SyncSubscribeRepos_Commit) {
	o.Helper()
	ctx := context.Background()
	o.header(msg.Repo, msg.Seq, msg.Time)
	if _, err := indigo.VerifyCommitMessage(ctx, msg); err != nil {
		o.Fatalf("seq %d: %v", msg.Seq, err)
	}
	if err := indigo.VerifyCommitSignature(ctx, o.directory, msg); err != nil {
		o.Fatalf("seq %d: %v", msg.Seq, err)
	}
	commit, root, err := indigo.LoadCommitFromCAR(ctx, bytes.NewReader(msg.Blocks))
	if err != nil || *root != cid.Cid(msg.Commit) {
		o.Fatalf("seq %d: root %v, commit %s: %v", msg.Seq, root, msg.Commit, err)
	}
	if o.rev != "" && (msg.Since == nil || *msg.Since != o.rev || msg.Rev <= o.rev || cid.Cid(*msg.PrevData) != o.data) {
		o.Fatalf("seq %d: %s since %v on %v, after %s %s", msg.Seq, msg.Rev, msg.Since, msg.PrevData, o.rev, o.data)
	}
	o.rev, o.data = msg.Rev, commit.Data
	for _, op := range msg.Ops {
		before, there := o.records[op.Path]
		if o.kinds[0] == "#identity" && (there != (op.Prev != nil) || there && op.Prev.String() != before) {
			o.Errorf("seq %d: %s %s on %v, have %q", msg.Seq, op.Action, op.Path, op.Prev, before)
		}
		delete(o.records, op.Path)
		if op.Cid != nil {
			o.records[op.Path] = op.Cid.String()
		}
	}
}

func (h *testHold) write(writes ...repo.Write) repo.Result {
	h.Helper()
	result, err := h.repo.Apply(context.Background(), writes, nil)
	if err != nil {
		h.Fatal(err)
	}
	return result
}

func note(action repo.Action, rkey string, n int) repo.Write {
	w := repo.Write{Action: action, Collection: coll, RKey: rkey}
	if action == repo.Delete {
		return w
	}
	var err error
	if w.Record, err = lexicon.Encode(map[string]any{"$type": coll, "n": n}); err != nil {
		panic(err)
	}
	return w
}

// The events of a new account in the order of the reference server, and then a
// #commit for each call.
func TestSubscribeRepos(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	o := h.observe("?cursor=0")
	o.follow(h.repo.Head().Seq)
	h.write(note(repo.Create, "a", 1), note(repo.Create, "b", 1))
	h.write(note(repo.Update, "a", 2), note(repo.Delete, "b", 0), note(repo.Create, "c", 3))
	h.write()
	h.write(note(repo.Delete, "a", 0))
	o.follow(h.repo.Head().Seq)
	if got, want := strings.Join(o.kinds, " "), "#identity #account #commit #sync #commit #commit #commit #commit"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(o.records) != 2 { // c, and the profile
		t.Errorf("records %v", o.records)
	}
	if o.rev != h.repo.Head().Rev || o.data != h.repo.Head().Data {
		t.Errorf("at %s %s, want %+v", o.rev, o.data, h.repo.Head())
	}

	for query, name := range map[string]string{"?cursor=x": "InvalidRequest", "?cursor=9000000000000000000": "FutureCursor"} {
		s := h.subscribe(query)
		if kind, body := s.next(); kind != "error" || !bytes.Contains(body, []byte(name)) {
			t.Errorf("%s: %s %q", query, kind, body)
		}
		if _, _, err := s.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", query, err)
		}
	}
	h.Want("GET", "com.atproto.sync.subscribeRepos", "", 400, "InvalidRequest", "connect as a WebSocket")
	h.Want("POST", "com.atproto.sync.subscribeRepos", "{}", 400, "InvalidRequest", "Incorrect HTTP method (POST) expected GET")
}

// Many subscribers, from the beginning or from a random cursor, get the same events
// while several writers commit.
func TestManySubscribers(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	const subscribers, calls = 100, 60
	early := h.observe("?cursor=0")
	var writing, reading sync.WaitGroup
	received := make([][]string, subscribers)
	sockets := make([]*subscriber, subscribers)
	for i := range sockets {
		sockets[i] = h.subscribe("?cursor=0")
	}
	for w := range 8 {
		writing.Go(func() {
			for n := range calls / 8 {
				key := fmt.Sprintf("w%dn%d", w, n)
				h.write(note(repo.Create, key, n), note(repo.Create, key+"x", n))
				if n%3 == 0 {
					h.write(note(repo.Update, key, n+1000), note(repo.Delete, key+"x", 0))
				}
			}
		})
	}
	writing.Wait()
	end := h.repo.Head().Seq
	early.follow(end)
	for i, s := range sockets {
		reading.Go(func() {
			for range early.kinds {
				kind, body := s.next()
				received[i] = append(received[i], kind+string(body))
			}
		})
	}
	reading.Wait()
	for i := range received {
		if fmt.Sprint(received[i]) != fmt.Sprint(received[0]) {
			t.Fatalf("subscriber %d received other frames", i)
		}
	}
	events := h.events(0)
	if len(events) != len(early.kinds) {
		t.Fatalf("%d events, and %d frames", len(events), len(early.kinds))
	}
	for range 10 {
		at := events[rand.IntN(len(events)-1)].Seq // there are no events after the last one
		late := h.observe(fmt.Sprintf("?cursor=%d", at))
		late.follow(end)
		if late.rev != early.rev {
			t.Errorf("from %d: at %s, want %s", at, late.rev, early.rev)
		}
	}
}

// events returns the events of the log after a sequence number.
func (h *testHold) events(after uint64) (all []repo.Event) {
	h.Helper()
	for {
		page, err := h.repo.Events(after, 100)
		if err != nil {
			h.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

// A repo in another folder may be an old copy: subscribers get a #sync with a
// higher sequence number than they have seen. A cursor from the future alone does
// not cause one.
func TestSubscriberAfterRestore(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.Folder = "here" })
	if err := h.server.UpdateStatus(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := h.repo.Head()
	seen := uint64(time.Now().UnixMicro()) // of an event that the restored log does not have
	h.advance(time.Minute)
	s := h.subscribe(fmt.Sprintf("?cursor=%d", seen))
	for range 3 { // as further starts do
		if err := h.server.UpdateStatus(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h.repo.Head() != before {
		t.Errorf("a cursor caused a commit %+v after %+v", h.repo.Head(), before)
	}
	h.server.folder = "elsewhere"
	for range 3 {
		if err := h.server.UpdateStatus(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	kind, body := s.next()
	if kind != "#sync" {
		t.Fatalf("unexpected frame %s", kind)
	}
	sync := decode[comatproto.SyncSubscribeRepos_Sync](t, body)
	head := h.repo.Head()
	if sync.Seq <= int64(seen) || uint64(sync.Seq) != head.Seq || sync.Rev != head.Rev || sync.Rev <= before.Rev || head.Data != before.Data {
		t.Errorf("#sync %d %s, head %+v, after %+v", sync.Seq, sync.Rev, head, before)
	}
	if n := strings.Count(h.logged(), "copied or restored"); n != 1 {
		t.Errorf("logged %d times, want 1: %s", n, h.logged())
	}
}

// A relay is asked to crawl, connects, and gets the events of an account that it
// does not know.
func TestRequestCrawl(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 1)
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- r.Method + " " + r.URL.Path + " " + string(body)
	}))
	defer relay.Close()
	h := newHold(t, func(cfg *Config) { cfg.Network = newNetwork(t, *cfg, relay.URL) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if got, want := <-requests, `POST /xrpc/com.atproto.sync.requestCrawl {"hostname":"`+testHost+`"}`; got != want {
		t.Fatalf("got request %s, want %s", got, want)
	}
	s := h.subscribe("")
	for _, want := range []string{"#identity", "#account", "#sync"} {
		if kind, _ := s.next(); kind != want {
			t.Errorf("a frame %s, want %s", kind, want)
		}
	}
}

func TestInvalidRelay(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	network := NetworkConfig{Identity: h.server.id, Repo: h.repo, Relays: []string{"http://relay.example.com"}}
	if _, err := NewNetwork(network); err == nil || !strings.Contains(err.Error(), "only a relay on this machine can use http") {
		t.Errorf("a relay without https: %v", err)
	}
	network.Hostname = "localhost:5000"
	n, err := NewNetwork(network)
	if err != nil || n.crawler != nil {
		t.Fatalf("a hold on localhost has relays: %v", err)
	}
	s, err := New(Config{Identity: network.Identity, Repo: h.repo, Network: n, PasswordFile: filepath.Join(t.TempDir(), "p")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := n.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// BenchmarkCommitToFrame measures the time from a commit to its frame at each
// subscriber.
func BenchmarkCommitToFrame(b *testing.B) {
	for _, subscribers := range []int{1, 100, 500} {
		b.Run(fmt.Sprint(subscribers), func(b *testing.B) {
			h := newHold(b)
			arrived := make(chan time.Time, subscribers)
			for range subscribers {
				s := h.subscribe("")
				go func() {
					for {
						if _, _, err := s.ReadMessage(); err != nil {
							return
						}
						arrived <- time.Now()
					}
				}()
			}
			for h.server.network.firehose.Subscribers() < subscribers {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			var fromCall, fromAnswer, last time.Duration
			n := 0
			for b.Loop() {
				n++
				called := time.Now()
				h.write(note(repo.Create, fmt.Sprint("k", n), n))
				answered := time.Now()
				for range subscribers {
					at := <-arrived
					fromCall += at.Sub(called)
					fromAnswer += at.Sub(answered)
				}
				last += time.Since(answered)
			}
			each := float64(n * subscribers)
			b.ReportMetric(float64(fromCall.Microseconds())/each/1000, "ms-from-call")
			b.ReportMetric(float64(fromAnswer.Microseconds())/each/1000, "ms-from-answer")
			b.ReportMetric(float64(last.Microseconds())/float64(n)/1000, "ms-last")
		})
	}
}

// The writer is paced while there are relays or subscribers.
func TestHasReaders(t *testing.T) {
	t.Parallel()
	if h := newHold(t, func(cfg *Config) { cfg.Network = newNetwork(t, *cfg, "https://relay.example.com") }); !h.server.network.hasReaders() {
		t.Error("a hold with a relay has no readers")
	}
	h := newHold(t)
	if h.server.network.hasReaders() {
		t.Error("a hold without relays and subscribers has readers")
	}
	s := h.subscribe("?cursor=0")
	s.next()
	if !h.server.network.hasReaders() {
		t.Error("a hold with a subscriber has no readers")
	}
	s.Close()
	for end := time.Now().Add(20 * time.Second); h.server.network.hasReaders(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a hold whose subscriber has disconnected has readers")
		}
	}
}
