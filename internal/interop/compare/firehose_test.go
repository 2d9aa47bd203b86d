package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// frame is a message of subscribeRepos: its header and its body, as JSON.
type frame struct{ head, body any }

func (f frame) kind() string { kind, _ := member(f.head, "t").(string); return kind }

// lines returns the compared parts of a frame.
func (f frame) lines() []string {
	return slices.Concat(shapeOf(f.head, []string{"t", "op"}), shapeOf(f.body, []string{"action", "path", "rebase", "tooBig", "active", "handle", "error", "name", "status"}))
}

// subscribe connects with a query such as "?cursor=0".
func (sd *side) subscribe(t *testing.T, query string) *websocket.Conn {
	t.Helper()
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(sd.URL, "http")+"/xrpc/com.atproto.sync.subscribeRepos"+query, nil)
	if err != nil {
		t.Fatalf("%s: subscribe %s: %v, %+v", sd.Name, query, err, res)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// next reads a frame.
func (sd *side) next(t *testing.T, conn *websocket.Conn) (frame, error) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, message, err := conn.ReadMessage()
	if err != nil {
		return frame{}, err
	}
	end := bytes.Index(message, []byte("\x62op")) + len("\x62op") + 1 // "op" is the last member, and 1 or -1
	var f frame
	for cbor, to := range map[string]*any{string(message[:end]): &f.head, string(message[end:]): &f.body} {
		raw, err := lexicon.ToJSON([]byte(cbor))
		if err != nil {
			t.Fatalf("%s: frame is not canonical: %v", sd.Name, err)
		}
		if err := json.Unmarshal(raw, to); err != nil {
			t.Fatal(err)
		}
	}
	return f, nil
}

func (sd *side) nextFrames(t *testing.T, conn *websocket.Conn, n int) []frame {
	t.Helper()
	var frames []frame
	for range n {
		f, err := sd.next(t, conn)
		if err != nil {
			t.Fatalf("%s: after %d of %d frames: %v", sd.Name, len(frames), n, err)
		}
		frames = append(frames, f)
	}
	return frames
}

// compareFirehose writes the same commits to both and compares the frames of a
// subscriber, live and from a cursor.
func compareFirehose(t *testing.T, theirs, ours *side) {
	const list = "com.example.fire"
	type step struct {
		row
		ops string // of the hold's frame, which has only the net changes; "": as the reference's
	}
	commits := []step{
		{row{post: applyWrites, body: batch(create(list, "a", `{"n":1}`)), want: ok, moves: true}, ""},
		{row{post: applyWrites, body: batch(update(list, "a", `{"n":2}`)), want: ok, moves: true}, ""},
		{row{post: applyWrites, body: batch(update(list, "a", `{"n":2}`)), want: ok, moves: true}, "none"}, // unchanged
		{row{post: applyWrites, body: batch(create(list, "b", `{}`), update(list, "a", `{}`), remove(list, "b"), create(list, "c", `{}`)), want: ok, moves: true}, "update com.example.fire/a, create com.example.fire/c"},
		{row{post: applyWrites, body: batch(), want: ok, moves: true}, ""},
		{row{post: putRecord, body: record(list, "p", `{"n":1}`, ""), want: ok, moves: true}, ""},
		{row{post: putRecord, body: record(list, "p", `{"n":1}`, ""), want: ok}, ""}, // unchanged
		{row{post: putRecord, body: record(list, "p", `{"n":2}`, ""), want: ok, moves: true}, ""},
		{row{post: deleteRecord, body: record(list, "p", "", ""), want: ok, moves: true}, ""},
		{row{post: deleteRecord, body: record(list, "p", "", ""), want: ok}, ""}, // already deleted
		{row{post: createRecord, body: record(list, "q", `{"n":1}`, ""), want: ok, moves: true}, ""},
		{row{post: applyWrites, body: batch(remove(list, "q"), remove(list, "a"), remove(list, "c")), want: ok, moves: true}, ""},
	}
	moving := slices.DeleteFunc(slices.Clone(commits), func(s step) bool { return !s.moves })
	var saw [2][]frame
	for i, sd := range []*side{theirs, ours} {
		sd.head(t)
		conn, before := sd.subscribe(t, ""), sd.vars["rev"]
		time.Sleep(300 * time.Millisecond) // the reference subscribes in the background
		for _, r := range commits {
			if got := sd.ask(t, r.row); got.answer != r.want || got.moved != r.moves {
				t.Fatalf("%s: %s: %v %s, moved %v", sd.Name, r.body, got.answer, got.message, got.moved)
			}
		}
		first := sd.nextFrames(t, conn, 1)[0]
		for member(first.body, "rev").(string) <= before { // the reference may send earlier commits late
			first = sd.nextFrames(t, conn, 1)[0]
		}
		saw[i] = append([]frame{first}, sd.nextFrames(t, conn, len(moving)-1)...)
		seq := member(saw[i][0].body, "seq")
		again := sd.nextFrames(t, sd.subscribe(t, fmt.Sprintf("?cursor=%.0f", seq)), len(moving)-1)
		if got, want := text(bodies(again)), text(bodies(saw[i][1:])); got != want {
			t.Errorf("%s: from a cursor\n%.600s\nwant the live frames\n%.600s", sd.Name, got, want)
		}
	}
	for i, step := range moving {
		their, our := saw[0][i].lines(), saw[1][i].lines()
		if step.ops != "" {
			their, our = without(their, "$.ops"), without(our, "$.ops")
			if got := saw[1][i].ops(); got != step.ops {
				t.Errorf("hold: operations of commit %d: %s, want %s", i+1, got, step.ops)
			}
		}
		sameLines(t, fmt.Sprintf("commit %d", i+1), their, our)
	}
}

// ops returns the operations of a commit in order.
func (f frame) ops() string {
	var list []string
	for i := 0; member(f.body, fmt.Sprintf("ops.%d", i)) != nil; i++ {
		op := member(f.body, fmt.Sprintf("ops.%d", i))
		list = append(list, fmt.Sprint(member(op, "action"), " ", member(op, "path")))
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}

func bodies(frames []frame) []any {
	var list []any
	for _, f := range frames {
		list = append(list, f.body)
	}
	return list
}

// compareFirstEvents compares the first events of an account. The reference's first
// commit is empty; the hold's has the profile.
func compareFirstEvents(t *testing.T, theirs, ours *side) {
	their := theirs.nextFrames(t, theirs.subscribe(t, "?cursor=0"), 3)
	our := ours.nextFrames(t, ours.subscribe(t, "?cursor=0"), 3)
	for i, kind := range []string{"#identity", "#account", "#commit"} {
		if their[i].kind() != kind || our[i].kind() != kind {
			t.Errorf("event %d: reference %s, hold %s, want %s", i+1, their[i].kind(), our[i].kind(), kind)
		}
	}
	sameLines(t, "identity", their[0].lines(), our[0].lines())
	sameLines(t, "account", their[1].lines(), our[1].lines())
	for _, f := range []frame{their[2], our[2]} {
		body := f.body.(map[string]any)
		since, given := body["since"]
		if _, prev := body["prevData"]; since != nil || !given || prev {
			t.Errorf("first commit: since %v (given: %v), prevData given: %v; want null and none", since, given, prev)
		}
	}
}

// compareInvalidCursors compares the error frame and the close message.
func compareInvalidCursors(t *testing.T, theirs, ours *side) {
	for query, want := range map[string]string{
		"?cursor=9007199254740991": "FutureCursor",
		"?cursor=x":                "InvalidRequest",
		"?cursor=1.5":              "InvalidRequest",
	} {
		for _, sd := range []*side{theirs, ours} {
			conn := sd.subscribe(t, query)
			f := sd.nextFrames(t, conn, 1)[0]
			if got := member(f.body, "error"); got != want {
				t.Errorf("%s: %s: %v %v, want %s", sd.Name, query, f.head, f.body, want)
			}
			_, err := sd.next(t, conn)
			var closed *websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != websocket.ClosePolicyViolation || closed.Text != want {
				t.Errorf("%s: %s: then %v, want a close 1008 %s", sd.Name, query, err, want)
			}
		}
	}
}

// compareConcurrent sends 20 concurrent requests, each of which must become a commit.
func compareConcurrent(t *testing.T, theirs, ours *side) {
	for _, sd := range []*side{theirs, ours} {
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex
			revs = map[any]bool{}
		)
		header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + sd.vars["access"]}, "X-Ratelimit-Bypass": {"bypass"}}
		for range 20 {
			wg.Go(func() {
				got, err := sd.send(t, http.MethodPost, applyWrites, header, sd.fill(batch(many(3)...)))
				if err != nil || got.status != http.StatusOK {
					t.Errorf("%s: %v %v", sd.Name, got.answer, err)
				}
				mu.Lock()
				defer mu.Unlock()
				revs[member(got.json, "commit.rev")] = true
			})
		}
		wg.Wait()
		if len(revs) != 20 {
			t.Errorf("%s: %d revisions for 20 commits", sd.Name, len(revs))
		}
	}
}
