package relay

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// timeout is how long a test waits for a condition.
const timeout = 20 * time.Second

const (
	collection = "com.example.thing"

	// hostname of the account. It has no port, because the relay changes the %3A in a
	// DID to lower case, which is another DID.
	hostname = "hold.example.com"
)

// account is a hold that can be stopped, and started again at the same address.
type account struct {
	*testing.T
	dir  string
	addr string // localhost:port

	folder string           // name of the repo's folder, different for a restored copy
	now    func() time.Time // nil: time.Now

	repo    *repo.Repo
	network *hold.Network
	http    *http.Server
	events  *prometheus.Registry
}

// newAccount creates a hold. Now is its clock; nil: time.Now.
func newAccount(t *testing.T, now func() time.Time) *account {
	t.Helper()
	l, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := &account{T: t, dir: t.TempDir(), addr: "localhost:" + port, folder: "first", now: now}
	if _, err := hold.Init(hold.InitConfig{Dir: a.path("hold"), KeyFile: a.path("key"), Hostname: hostname, Reserve: 1, Now: now}); err != nil {
		t.Fatal(err)
	}
	a.serve(l)
	t.Cleanup(a.stop)
	return a
}

func (a *account) path(name string) string { return filepath.Join(a.dir, name) }

func (a *account) start() {
	a.Helper()
	l, err := net.Listen("tcp", "127.0.0.1"+a.addr[len("localhost"):])
	if err != nil {
		a.Fatal(err)
	}
	a.serve(l)
}

func (a *account) serve(l net.Listener) {
	a.Helper()
	r, id, err := hold.OpenRepo(hold.RepoConfig{Dir: a.path("hold"), KeyFile: a.path("key"), Hostname: hostname, Reserve: 1, Now: a.now})
	if err != nil {
		a.Fatal(err)
	}
	metrics := hold.NewMetrics()
	network, err := hold.NewNetwork(hold.NetworkConfig{Identity: id, Repo: r, Now: a.now, Metrics: metrics})
	if err != nil {
		a.Fatal(err)
	}
	server, err := hold.New(hold.Config{Identity: id, Repo: r, Network: network, PasswordFile: a.path("password"), Folder: a.folder})
	if err != nil {
		a.Fatal(err)
	}
	if err := server.UpdateStatus(context.Background()); err != nil {
		a.Fatal(err)
	}
	a.events = prometheus.NewRegistry()
	a.events.MustRegister(metrics.Collectors()...)
	a.repo, a.network, a.http = r, network, &http.Server{Handler: server}
	go a.http.Serve(l)
}

func (a *account) stop() {
	if a.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		a.Error(err)
	}
	if err := a.network.Shutdown(ctx); err != nil {
		a.Error(err)
	}
	if err := a.repo.Close(); err != nil {
		a.Error(err)
	}
	a.http = nil
}

// subscribed waits for a subscriber.
func (a *account) subscribed() {
	a.Helper()
	eventually(a.T, "the relay subscribes", func() bool {
		families, err := a.events.Gather()
		if err != nil {
			a.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "tidings_firehose_subscribers" {
				return f.GetMetric()[0].GetGauge().GetValue() > 0
			}
		}
		return false
	})
}

// backup copies the repo for restore.
func (a *account) backup() {
	a.Helper()
	if err := os.CopyFS(a.path("backup"), os.DirFS(a.path("hold"))); err != nil {
		a.Fatal(err)
	}
}

func (a *account) restore() {
	a.Helper()
	if err := os.RemoveAll(a.path("hold")); err != nil {
		a.Fatal(err)
	}
	if err := os.Rename(a.path("backup"), a.path("hold")); err != nil {
		a.Fatal(err)
	}
	a.folder = "restored"
}

func (a *account) apply(writes ...repo.Write) {
	a.Helper()
	if _, err := a.repo.Apply(context.Background(), writes, nil); err != nil {
		a.Fatal(err)
	}
}

func note(action repo.Action, rkey string, n int) repo.Write {
	w := repo.Write{Action: action, Collection: collection, RKey: rkey}
	if action == repo.Delete {
		return w
	}
	record, err := lexicon.Encode(map[string]any{"$type": collection, "n": n})
	if err != nil {
		panic(err)
	}
	w.Record = record
	return w
}

// identity returns the identity in the hold's did.json.
func (a *account) identity() identity.Identity {
	a.Helper()
	return identityAt(a.T, http.DefaultClient, "http://"+a.addr)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}
