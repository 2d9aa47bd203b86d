package hold

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
	"github.com/tidings-dev/tidings/internal/race"
)

const getBlocks = "com.atproto.sync.getBlocks?did=%"

// blockOf returns the CID of a record of fill.
func (h *testHold) blockOf(rkey string) cid.Cid {
	h.Helper()
	id, _, err := h.repo.Get(coll, rkey)
	if err != nil {
		h.Fatal(err)
	}
	return id
}

func TestGetBlocksLimit(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(6, 900_000)
	one := "&cids=" + h.blockOf("k00").String()
	once := h.raw(getBlocks + one)
	if got := h.raw(getBlocks + strings.Repeat(one, maxBlocks)); !bytes.Equal(got, once) {
		t.Errorf("one CID %d times: got %d bytes, want %d", maxBlocks, len(got), len(once))
	}
	h.Want("GET", getBlocks+strings.Repeat(one, maxBlocks+1), "", 400, "InvalidRequest", "Too many cids. Max: 250")
	h.Want("GET", getBlocks+strings.Repeat(one, 9_900), "", http.StatusRequestURITooLong, "URITooLong", "")
	four := ""
	for i := range 4 {
		four += "&cids=" + h.blockOf(fmt.Sprintf("k%02d", i)).String()
	}
	if got := h.raw(getBlocks + four); len(got) < 3_600_000 {
		t.Errorf("4 blocks: got %d bytes", len(got))
	}
	h.Want("GET", getBlocks+four+"&cids="+h.blockOf("k04").String(), "", 400, "InvalidRequest", "more than 4194304 bytes in total")
}

// publicQueries returns the most expensive request of each public query: of those
// that need an export slot, and of the others.
func (h *testHold) publicQueries() (slotted, others map[string]string) {
	head := h.repo.Head()
	record := "&collection=" + coll + "&rkey=k00"
	blocks := getBlocks
	for i := range 4 {
		blocks += "&cids=" + h.blockOf(fmt.Sprintf("k%02d", i)).String()
	}
	const sync = "com.atproto.sync."
	slotted = map[string]string{
		sync + "getRepo":       sync + "getRepo?did=%",
		sync + "getCheckout":   sync + "getCheckout?did=%",
		sync + "getBlocks":     blocks,
		sync + "getCommitPath": sync + "getCommitPath?did=%",
		sync + "listBlobs":     sync + "listBlobs?did=%&limit=1000&since=2222222222222",
	}
	others = map[string]string{
		"com.atproto.server.describeServer":  "com.atproto.server.describeServer",
		"com.atproto.identity.resolveHandle": "com.atproto.identity.resolveHandle?handle=nobody.example.com",
		"com.atproto.repo.getRecord":         "com.atproto.repo.getRecord?repo=%" + record,
		"com.atproto.repo.listRecords":       "com.atproto.repo.listRecords?repo=%&limit=100&collection=" + coll,
		"com.atproto.repo.describeRepo":      "com.atproto.repo.describeRepo?repo=%",
		sync + "getBlob":                     sync + "getBlob?did=%&cid=" + head.Commit.String(),
		sync + "listBlobs":                   sync + "listBlobs?did=%&limit=1000",
		sync + "getRepoStatus":               sync + "getRepoStatus?did=%",
		sync + "listRepos":                   sync + "listRepos?limit=1000",
		sync + "getHead":                     sync + "getHead?did=%",
		sync + "getLatestCommit":             sync + "getLatestCommit?did=%",
		sync + "getRecord":                   sync + "getRecord?did=%" + record,
	}
	for nsid, m := range h.server.rpc.Methods {
		open := m.Verb == http.MethodGet && m.Access(&xrpc.Call{Request: h.Request("GET", "/", ""), Response: http.Header{}}) == nil
		if open && slotted[nsid] == "" && others[nsid] == "" {
			h.Errorf("%s is missing in this test", nsid)
		}
	}
	return slotted, others
}

// Long reads need an export slot, the rest does not.
func TestExportSlots(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(4, 10)
	other := &http.Request{RemoteAddr: "192.0.2.1:1"}
	another := &http.Request{RemoteAddr: "[2001:db8::1]:1"}
	slotted, others := h.publicQueries()
	slotted["getRepo, since"] = "com.atproto.sync.getRepo?did=%&since=2222222222222"
	slotted["getRepo, earliest"] = "com.atproto.sync.getRepo?did=%&earliest=" + h.repo.Head().Commit.String()
	status := func(path string) int {
		resp, _ := h.Do(h.Request("GET", "/xrpc/"+strings.ReplaceAll(path, "%", h.DID), ""))
		if (resp.StatusCode == 429) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: got %d and Retry-After %q", path, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		return resp.StatusCode
	}
	for name, path := range slotted {
		if got := status(path); got != 200 {
			t.Errorf("%s, with free slots: got %d", name, got)
		}
	}
	for _, by := range []*http.Request{other, other, another, another} {
		h.server.exports.Acquire(clientaddr.Of(by))
	}
	for name, path := range slotted {
		if got := status(path); got != 429 {
			t.Errorf("%s: got %d", name, got)
		}
	}
	for name, path := range others {
		if got := status(path); got == 429 {
			t.Errorf("%s: got %d", name, got)
		}
	}
}

// TestPublicQueryMemory limits the memory that a public query allocates, with
// records of the largest size. The export of a whole repo uses its buffers
// again, which is tested in package repo.
func TestPublicQueryMemory(t *testing.T) { // not parallel, because it measures
	race.Skip(t, "nothing in it runs concurrently")
	h := newHold(t)
	h.fill(20, 1_000_000)
	slotted, others := h.publicQueries()
	for _, paths := range []map[string]string{slotted, others} {
		for name, path := range paths {
			r := h.Request("GET", "/xrpc/"+strings.ReplaceAll(path, "%", h.DID), "")
			var w *discard
			allocated := uint64(math.MaxUint64)
			for range 3 { // the database may allocate at the same time
				w = &discard{header: http.Header{}}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				h.server.ServeHTTP(w, r)
				runtime.ReadMemStats(&after)
				allocated = min(allocated, after.TotalAlloc-before.TotalAlloc)
			}
			t.Logf("%s: status %d, %d bytes sent, %d kB allocated", name, w.status, w.size, allocated>>10)
			if allocated > 32<<20 && !strings.Contains(name, "getRepo") && !strings.Contains(name, "getCheckout") {
				t.Errorf("%s: allocates %d MiB", name, allocated>>20)
			}
			if _, open := others[name]; open && w.size > 3<<20 {
				t.Errorf("%s: sends %d MiB", name, w.size>>20)
			}
		}
	}
}

// discard is a ResponseWriter that only counts.
type discard struct {
	header http.Header
	status int
	size   int64
}

func (d *discard) Header() http.Header { return d.header }

func (d *discard) WriteHeader(status int) { d.status = status }

func (d *discard) Write(b []byte) (int, error) {
	d.size += int64(len(b))
	return len(b), nil
}

// An export fails at its time limit.
func TestExportTimeout(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(4, 100_000)
	c := &xrpc.Call{Request: h.Request("GET", "/", ""), Response: http.Header{}}
	answer := h.server.export(c, 0, func(ctx context.Context, out io.Writer) error {
		_, err := out.Write([]byte("x"))
		return err
	})
	if err := answer.Write(io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if h.server.exports.InUse() != 0 {
		t.Error("the slot is still taken")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	head := h.repo.Head().Commit
	_, errPath := h.repo.CommitPath(ended, cid.Undef, cid.Undef)
	_, errRev := h.repo.RevOf(ended, head)
	for name, err := range map[string]error{
		"Export":       h.repo.Export(ended, io.Discard),
		"ExportSince":  h.repo.ExportSince(ended, io.Discard, "2222222222222"),
		"ExportBlocks": h.repo.ExportBlocks(ended, io.Discard, []cid.Cid{head}, 1<<20),
		"CommitPath":   errPath,
		"RevOf":        errRev,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
