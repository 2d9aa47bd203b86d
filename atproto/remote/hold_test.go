package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// memory is a notifier that applies each key once and writes layer records.
type memory struct {
	repo *repo.Repo
	now  func() time.Time

	mu      sync.Mutex
	applied map[string]hold.Notification // by key
	tid     int64
}

func (m *memory) Notify(ctx context.Context, n hold.Notification) (out lexicon.NotifyManifestOutput, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out = lexicon.NotifyManifestOutput{Success: true, Operation: n.Operation, StatsUpdated: true}
	if before, ok := m.applied[n.Key]; ok {
		if !reflect.DeepEqual(before.NotifyManifestInput, n.NotifyManifestInput) {
			return out, xrpc.InvalidRequest("this key was used for another request")
		}
		return out, nil
	}
	if n.Operation == lexicon.OperationPush {
		if err := m.write(ctx, n.NotifyManifestInput); err != nil {
			return out, err
		}
	}
	m.applied[n.Key] = n
	return out, nil
}

func (m *memory) write(ctx context.Context, in lexicon.NotifyManifestInput) error {
	var writes []repo.Write
	for _, d := range in.Manifest.Layers {
		raw, err := json.Marshal(lexicon.Layer{
			Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, UserDID: in.UserDID,
			Manifest: lexicon.ManifestURI(in.UserDID, in.ManifestDigest), CreatedAt: m.now().UTC().Format(time.RFC3339),
		})
		if err != nil {
			return err
		}
		record, err := lexicon.FromJSON(raw)
		if err != nil {
			return err
		}
		m.tid = max(m.tid+1, m.now().UnixMicro())
		writes = append(writes, repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: syntax.NewTID(m.tid, 1).String(), Record: record})
	}
	_, err := m.repo.Apply(ctx, writes, nil)
	return err
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.applied)
}

// newTidings starts a hold of Tidings behind a proxy, and returns a rig whose server is
// not used.
func newTidings(t *testing.T) (*rig, *faultproxy.Proxy, *memory) {
	t.Helper()
	clock := clocktest.New()
	clock.Real = true
	web := httptest.NewUnstartedServer(nil) // its handler needs the address of the proxy
	proxy, err := faultproxy.New("http://"+web.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	hostname := "localhost" + front.URL[strings.LastIndexByte(front.URL, ':'):]

	dir := t.TempDir()
	at := hold.RepoConfig{Dir: filepath.Join(dir, "hold"), KeyFile: filepath.Join(dir, "hold.key"), Hostname: hostname, Reserve: 1, Now: clock.Now}
	if _, err := hold.Init(hold.InitConfig{Dir: at.Dir, KeyFile: at.KeyFile, Hostname: hostname, Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	r, id, err := hold.OpenRepo(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	network, err := hold.NewNetwork(hold.NetworkConfig{Identity: id, Repo: r, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	registry, directory := newRegistry(t)
	notifier := &memory{repo: r, now: clock.Now, applied: map[string]hold.Notification{}}
	server, err := hold.New(hold.Config{
		Identity: id, Repo: r, Network: network, PasswordFile: filepath.Join(dir, "password"), Now: clock.Now,
		Notifier: notifier, Registries: []string{registry.DID}, PLC: directory,
	})
	if err != nil {
		t.Fatal(err)
	}
	web.Config.Handler = server
	web.Start()
	t.Cleanup(web.Close)
	client := &rig{T: t, Machine: clock, cfg: Config{Hold: id.DID, Tokens: Signed(registry.DID, registry.Key, clock.Now), Now: clock.Now}}
	client.restart()
	return client, proxy, notifier
}

// newRegistry returns an account with a did:plc, and the directory that has it.
func newRegistry(t *testing.T) (identity.Identity, string) {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	id := identity.Identity{DID: "did:plc:z72i7hdynmk6r22z27h6tvur", Handle: identity.HandleInvalid, Hostname: "registry.example.com", Key: key}
	doc, err := id.Document()
	if err != nil {
		t.Fatal(err)
	}
	return id, newDirectory(t, doc)
}

// The client and a hold of Tidings, with the calls of the owner's registry.
func TestHoldOfTidings(t *testing.T) {
	t.Parallel()
	r, proxy, notifier := newTidings(t)
	push := r.push(3)
	if out, err := r.Notify(t.Context(), push); err != nil || !out.Success || out.Operation != "push" {
		t.Fatalf("got %+v, %v", out, err)
	}
	if s := r.Status(); s.Keys != KeysHonored || !strings.HasPrefix(s.Audience, r.cfg.Hold+"#") {
		t.Errorf("got %+v, want a hold that honors keys and has a service", s)
	}
	for i, restart := range []bool{false, true} {
		lost := r.pull()
		lost.Key = fmt.Sprint("pull ", i)
		proxy.Start(faultproxy.Fault{Kind: faultproxy.Cut, Delivered: true, Method: lexicon.NSIDNotifyManifest})
		_, err := r.Notify(t.Context(), lost)
		if r.pass(err); !Lost(err) {
			t.Fatalf("got %v", err)
		}
		proxy.End()
		if restart {
			r.restart()
			_, err := r.Written(t.Context(), lost)
			r.pass(err)
		}
		if w := r.written(lost); w.Next != Repeat || w.Call.Key != lost.Key {
			t.Errorf("restart %t: got %+v", restart, w)
		}
		r.notify(lost)
		if got := notifier.count(); got != i+2 {
			t.Errorf("restart %t: got %d events, want %d", restart, got, i+2)
		}
	}
	// A key that is too old to be honored: the records are read back.
	old := push
	r.Pass(keyLife)
	if w := r.written(old); w.Next != Applied || len(w.Records) != 3 {
		t.Errorf("got %+v", w)
	}
	old.Since = r.Machine.Now()
	old.Input.ManifestDigest = digest("e")
	r.Pass(keyLife)
	if w := r.written(old); w.Next != Repeat || len(w.Call.Input.Manifest.Layers) != 3 {
		t.Errorf("got %+v", w)
	}
}

func TestHoldOfTidingsRefuses(t *testing.T) {
	t.Parallel()
	r, _, notifier := newTidings(t)
	r.notify(r.push(1))
	reused := r.push(2)
	invalid := r.push(1)
	invalid.Key, invalid.Input.Repository = "push 2", "OSS/App"
	operation := r.push(1)
	operation.Key, operation.Input.Operation = "push 3", "copy"
	for _, tc := range []struct {
		call       Call
		name, want string
	}{
		{reused, "InvalidRequest", "key was used"},
		{invalid, "InvalidRequest", "invalid repository name"},
		{operation, "InvalidOperation", "use push or pull"},
	} {
		_, err := r.Notify(t.Context(), tc.call)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Name != tc.name || !strings.Contains(refused.Message, tc.want) {
			t.Errorf("got %v, want %s with %q", err, tc.name, tc.want)
		}
	}
	stranger, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	for name, tokens := range map[string]Tokens{
		"not configured": Signed("did:web:other.example.com", stranger, r.Machine.Now),
		"another key":    Signed("did:plc:z72i7hdynmk6r22z27h6tvur", stranger, r.Machine.Now),
		"clock":          Signed("did:plc:z72i7hdynmk6r22z27h6tvur", stranger, func() time.Time { return r.Machine.Now().Add(-time.Hour) }),
	} {
		r.cfg.Tokens = tokens
		r.restart()
		_, err := r.Notify(t.Context(), r.push(1))
		if failed := r.pass(err); failed.Outcome != pds.Suspended || failed.Name == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := notifier.count(); got != 1 {
		t.Errorf("got %d events, want 1", got)
	}
}
