package handles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// network has DNS records and hosts. A host without an answer can't be reached.
type network struct {
	mu       sync.Mutex
	txt      map[string][]string // by name
	hosts    map[string]string   // bodies by URL
	block    chan struct{}       // lookups in DNS wait for it; nil: they do not wait
	requests []string
}

func (n *network) lookupTXT(ctx context.Context, name string) ([]string, error) {
	n.mu.Lock()
	n.requests = append(n.requests, name)
	block, texts := n.block, n.txt[name]
	n.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if texts == nil {
		return nil, errors.New("no such host")
	}
	return texts, nil
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests = append(n.requests, r.URL.String())
	body, ok := n.hosts[r.URL.String()]
	if !ok {
		return nil, errors.New("no route")
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
}

// lookups returns how many lookups in DNS there were.
func (n *network) lookups() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.requests {
		if strings.HasPrefix(r, "_atproto.") {
			count++
		}
	}
	return count
}

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

const (
	aliceHandle = "alice.example.com"
	aliceDID    = "did:web:alice.example.net"
	aliceTXT    = "_atproto.alice.example.com."
	aliceDoc    = "https://alice.example.net/.well-known/did.json"
	aliceHost   = "https://alice.example.com/.well-known/atproto-did"
)

func document(did, handle string) string {
	return fmt.Sprintf(`{"id":%q,"alsoKnownAs":["at://%s"]}`, did, handle)
}

// withAlice is a network in which alice's handle is in DNS.
func withAlice() *network {
	return &network{txt: map[string][]string{aliceTXT: {"v=spf1", "did=" + aliceDID}}, hosts: map[string]string{aliceDoc: document(aliceDID, aliceHandle)}}
}

func newResolver(t *testing.T, n *network, cfg Config) *Resolver {
	cfg.TXT, cfg.Transport = n.lookupTXT, n
	r := New(cfg)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestLookup(t *testing.T) {
	t.Parallel()
	const plc = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	for _, test := range []struct {
		name  string
		txt   []string
		hosts map[string]string
		want  string
		err   string
	}{
		{"in DNS", []string{"did=" + aliceDID}, map[string]string{aliceDoc: document(aliceDID, aliceHandle)}, aliceDID, ""},
		{"on its host", nil, map[string]string{aliceHost: aliceDID + "\n", aliceDoc: document(aliceDID, aliceHandle)}, aliceDID, ""},
		{"did:plc", []string{"did=" + plc}, map[string]string{"https://plc.example.com/" + plc: document(plc, "Alice.Example.com")}, plc, ""},
		{"DNS before the host", []string{"did=" + aliceDID}, map[string]string{aliceHost: plc, aliceDoc: document(aliceDID, aliceHandle)}, aliceDID, ""},
		{"nowhere", nil, nil, "", "no route"},
		{"two DIDs", []string{"did=" + aliceDID, "did=" + plc}, nil, "", "2 different DIDs"},
		{"no DID in DNS", []string{"did=alice"}, nil, "", "not a DID"},
		{"a page on its host", nil, map[string]string{aliceHost: "<html>" + strings.Repeat("x", 1<<20)}, "", "is not the DID"},
		{"without a document", []string{"did=" + aliceDID}, nil, "", "no route"},
		{"another handle", []string{"did=" + aliceDID}, map[string]string{aliceDoc: document(aliceDID, "bob.example.com")}, "", "unverified"},
		{"another DID", []string{"did=" + aliceDID}, map[string]string{aliceDoc: document(plc, aliceHandle)}, "", "unverified"},
		{"a DID of this machine", []string{"did=did:web:localhost%3A5000"}, map[string]string{"http://localhost:5000/.well-known/did.json": document("did:web:localhost%3A5000", aliceHandle)}, "", "on this machine"},
		{"a DID with an address", []string{"did=did:web:10.0.0.1"}, nil, "", "not the DID of an account"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := &network{txt: map[string][]string{aliceTXT: test.txt}, hosts: test.hosts}
			r := newResolver(t, n, Config{PLC: "https://plc.example.com"})
			did, err := r.Resolve(t.Context(), aliceHandle)
			if did != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %q, %v, want %q, %q", did, err, test.want, test.err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"alice.example.com": true, "a.b.c.example.org": true, "Alice.example.com": false, "alice": false, "": false,
		"localhost": false, "db.localhost": false, "db.internal": false, "10.0.0.1": false, "alice.example.com:443": false, "oss": false,
	} {
		if err := Validate(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A lookup that blocks holds up neither Cached nor other handles, and ends.
func TestBlocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := withAlice()
		n.block = make(chan struct{})
		r := newResolver(t, n, Config{})
		if did, known := r.Cached("slow.example.com"); known {
			t.Errorf("known as %s", did)
		}
		synctest.Wait()
		n.set(func() { n.block = nil })
		if did, err := r.Resolve(t.Context(), aliceHandle); did != aliceDID || err != nil {
			t.Errorf("got %q, %v", did, err)
		}
		began := time.Now()
		if _, err := r.Resolve(t.Context(), "slow.example.com"); err == nil || time.Since(began) != timeout {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// A failure is cached, and its handle looked up again after a delay that grows.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		r := newResolver(t, n, Config{})
		for range 2 * 60 * 60 {
			r.Cached(aliceHandle)
			time.Sleep(time.Second)
		}
		if got := n.lookups(); got < 5 || got > 9 {
			t.Errorf("%d lookups in 2 hours", got)
		}
		n.set(func() { n.txt, n.hosts = withAlice().txt, withAlice().hosts })
		time.Sleep(maxRetry)
		changed := r.Changed()
		r.Cached(aliceHandle)
		<-changed
		if did, known := r.Cached(aliceHandle); !known || did != aliceDID {
			t.Errorf("got %q, %v", did, known)
		}
	})
}

// A DID is refreshed in the background and survives an outage of a day, but not its
// document's naming another handle.
func TestStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := withAlice()
		r := newResolver(t, n, Config{Keep: []string{aliceHandle}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = r.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		known := func() bool {
			synctest.Wait()
			did, known := r.Cached(aliceHandle)
			return known && did == aliceDID
		}
		if !known() {
			t.Error("not known at the start")
		}
		time.Sleep(90 * time.Minute)
		if got := n.lookups(); got != 2 {
			t.Errorf("%d lookups in 90 minutes", got)
		}
		n.set(func() { n.txt = nil })
		if time.Sleep(20 * time.Hour); !known() {
			t.Error("not known in an outage")
		}
		if time.Sleep(6 * time.Hour); known() {
			t.Error("known after a day")
		}
		n.set(func() { n.txt = withAlice().txt })
		if time.Sleep(2 * time.Hour); !known() {
			t.Error("not known after the outage")
		}
		n.set(func() { n.hosts[aliceDoc] = document(aliceDID, "bob.example.com") })
		if time.Sleep(2 * time.Hour); known() {
			t.Error("known although the DID has another handle")
		}
	})
}

// Run keeps the handles that the documents of accounts name, if they name the accounts.
func TestKeepAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := withAlice()
		const mallory = "did:web:mallory.example.com"
		n.hosts["https://mallory.example.com/.well-known/did.json"] = document(mallory, aliceHandle)
		r := newResolver(t, n, Config{KeepAccounts: []string{"did:web:gone.example.com", mallory, aliceDID}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = r.Run(ctx) }()
		synctest.Wait()
		before := n.lookups()
		if did, known := r.Cached(aliceHandle); !known || did != aliceDID || n.lookups() != before {
			t.Errorf("got %q, %v", did, known)
		}
		cancel()
		<-ended
	})
}

// The number of cached handles and of lookups at once is limited.
func TestBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{block: make(chan struct{})}
		r := newResolver(t, n, Config{})
		for i := range 3 * maxCached {
			r.Cached(fmt.Sprintf("h%d.example.com", i))
		}
		synctest.Wait()
		if got := n.lookups(); got != maxLookups {
			t.Errorf("%d lookups", got)
		}
		if got := r.entries.Len(); got > maxCached+maxLookups {
			t.Errorf("%d entries", got)
		}
		if _, err := r.Resolve(t.Context(), "one.more.example.com"); !errors.Is(err, errBusy) {
			t.Errorf("got %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
