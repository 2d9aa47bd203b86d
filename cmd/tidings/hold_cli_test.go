package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/store"
)

// newHold creates an account in a new folder, with the configuration c.yml.
func newHold(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if options == "" {
		options = "hold: {hostname: \"localhost:5000\", reserve: 1MiB}"
	}
	file(t, dir, "c.yml", "data: ./data\n"+options)
	if out, errs, code := tidings(t, dir, nil, "hold", "init", "c.yml"); code != 0 {
		t.Fatalf("init: code %d, %s%s", code, out, errs)
	}
	return dir
}

// expect runs a command and checks its exit code and that its output has the texts.
func expect(t *testing.T, dir string, code int, args []string, texts ...string) (out string) {
	t.Helper()
	out, errs, got := tidings(t, dir, nil, args...)
	if got != code {
		t.Errorf("%v: code %d, want %d:\n%s%s", args, got, code, out, errs)
	}
	for _, want := range texts {
		if !strings.Contains(out+errs, want) {
			t.Errorf("%v: missing %q:\n%s%s", args, want, out, errs)
		}
	}
	return out
}

// damage changes the database of a hold directly.
func damage(t *testing.T, dir string, change func(b store.Batch)) {
	t.Helper()
	db, err := store.Open(store.Config{Dir: filepath.Join(dir, "data", "hold"), FormatKey: []byte("f"), Format: 3})
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	change(b)
	if err := db.Commit(b, store.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestHoldStatus(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	expect(t, dir, 0, []string{"hold", "status", "c.yml"},
		"account  did:web:localhost%3A5000", "handle.invalid", "did:key:z", "data/hold.key", "server   stopped", "commit bafyrei",
		"1 app.bsky.actor.profile", "events   4, ", "free", "health   ok")
	expect(t, t.TempDir(), 1, []string{"hold", "status", "c.yml"}, "c.yml")
	empty := t.TempDir()
	file(t, empty, "c.yml", "data: ./data\nhold: {hostname: localhost}")
	expect(t, empty, 1, []string{"hold", "status", "c.yml"}, "tidings hold init")
	if entries, _ := os.ReadDir(empty); len(entries) != 1 {
		t.Errorf("unexpected files: %v", entries)
	}
}

// The exit code of verify reports damage, and repair repairs it.
func TestHoldVerifyAndRepair(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "Read 1 record, 1 node of its tree, 4 events and 0 blobs", "did:web:localhost%3A5000 is valid, at ")
	expect(t, dir, 0, []string{"hold", "repair", "c.yml"}, "nothing to repair")
	damage(t, dir, func(b store.Batch) { b.DeleteRange([]byte("n/"), []byte("n0")) })
	expect(t, dir, 2, []string{"hold", "verify", "c.yml"}, "tree node bafyrei", ": missing", "the repo is damaged", "`tidings hold repair c.yml`")
	expect(t, dir, 0, []string{"hold", "repair", "c.yml"}, ": missing", "repaired: the repo was rebuilt", "The previous repo is kept in data/hold.before-repair-")
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "is valid")

	damage(t, dir, func(b store.Batch) {
		b.DeleteRange([]byte("r/"), []byte("r0"))
		b.DeleteRange([]byte("e/"), []byte("e0"))
	})
	expect(t, dir, 1, []string{"hold", "repair", "c.yml"}, "1 records are lost", "app.bsky.actor.profile/self", "Nothing was changed", "--without-lost c.yml")
	expect(t, dir, 0, []string{"hold", "repair", "--without-lost", "c.yml"}, "dropped: app.bsky.actor.profile/self")
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "Read 0 records, 1 node")
}

// If tables of the database are missing, verify reports damage, and repair says what to do.
func TestHoldMissingTables(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	expect(t, dir, 0, []string{"hold", "export", "c.yml", "out.car"})
	damage(t, dir, func(store.Batch) {}) // opening it moves the log into tables
	tables, err := filepath.Glob(filepath.Join(dir, "data", "hold", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	for _, table := range tables {
		if err := os.Remove(table); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, dir, 2, []string{"hold", "verify", "c.yml"}, "file: ", "does not exist", "the repo is damaged: 1 problem; `tidings hold repair c.yml`")
	expect(t, dir, 1, []string{"hold", "repair", "c.yml"},
		"nothing can be derived from it: ", "does not exist; restore a backup (`tidings restore`), or move data/hold away, run `tidings hold init`, and restore an export (`tidings hold import`)")
	if err := os.Rename(filepath.Join(dir, "data", "hold"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 0, []string{"hold", "init", "c.yml"})
	expect(t, dir, 0, []string{"hold", "import", "c.yml", "out.car"}, "Imported 1 record ")
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "is valid")
}

func TestHoldExportAndImport(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	expect(t, dir, 0, []string{"hold", "export", "c.yml", "out.car"}, "Exported did:web:localhost%3A5000 at ", "with 0 blobs to out.car")
	expect(t, dir, 1, []string{"hold", "export", "c.yml", "out.car"}, "out.car already exists")
	car, err := os.ReadFile(filepath.Join(dir, "out.car"))
	if err != nil || len(car) < 200 {
		t.Fatalf("%d bytes, %v", len(car), err)
	}
	if out := expect(t, dir, 0, []string{"hold", "export", "c.yml"}); out != string(car) {
		t.Errorf("standard output has %d bytes, different from the file's %d", len(out), len(car))
	}
	damage(t, dir, func(b store.Batch) { b.DeleteRange([]byte("r/"), []byte("r0")) })
	expect(t, dir, 1, []string{"hold", "export", "c.yml", "broken.car"}, "is missing")
	if cli.Exists(filepath.Join(dir, "broken.car")) {
		t.Error("an incomplete export remains")
	}
	expect(t, dir, 0, []string{"hold", "import", "c.yml", "out.car"}, "Imported 1 record and 0 blobs into ", "signed with a key of this account", "hold.before-import-")
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "is valid")
	if err := os.WriteFile(filepath.Join(dir, "half.car"), car[:len(car)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 1, []string{"hold", "import", "c.yml", "half.car"}, "invalid repo archive")
	expect(t, dir, 1, []string{"hold", "import", "c.yml", "none.car"}, "open none.car")
}

func TestHoldKeyRotate(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	key := filepath.Join(dir, "data", "hold.key")
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 0, []string{"hold", "key", "rotate", "c.yml"}, "did:web:localhost%3A5000 now signs with did:key:z", "is kept in data/hold.key.old-")
	now, err := os.ReadFile(key)
	if err != nil || string(now) == string(before) {
		t.Errorf("the key has not changed, %v", err)
	}
	old, _ := filepath.Glob(key + ".old-*")
	if len(old) != 1 {
		t.Fatalf("old keys: %q", old)
	}
	if kept, err := os.ReadFile(old[0]); err != nil || string(kept) != string(before) {
		t.Errorf("the old key is not kept, %v", err)
	}
	expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "6 events", "is valid")
	expect(t, dir, 0, []string{"hold", "status", "c.yml"}, "and 1 previous key next to it")
}

// A repo without its key is no new account, and `hold init` refuses it.
func TestHoldKeyMissing(t *testing.T) {
	t.Parallel()
	dir := newHold(t, "")
	expect(t, dir, 0, []string{"config", "check", "c.yml"}, "c.yml is valid")
	if err := os.Remove(filepath.Join(dir, "data", "hold.key")); err != nil {
		t.Fatal(err)
	}
	const missing = "the signing key data/hold.key of the repo in data/hold is missing: restore the key from a backup"
	expect(t, dir, 1, []string{"config", "check", "c.yml"}, "c.yml is invalid:\n  options.hold.key_file: "+missing)
	expect(t, dir, 1, []string{"config", "check", "--online", "c.yml"}, missing)
	expect(t, dir, 1, []string{"hold", "init", "c.yml"}, missing)
}

// startHoldServe runs `hold serve` and returns its URL.
func startHoldServe(t *testing.T, dir string) (base string, stop func()) {
	t.Helper()
	log := &logBuffer{}
	cmd := exec.Command(os.Args[0], "hold", "serve", "c.yml")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), runMain+"=1")
	cmd.Stdout, cmd.Stderr = io.Discard, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, at, ok := strings.Cut(log.String(), "is served at "); ok && strings.Contains(at, "\n") {
			base, _, _ = strings.Cut(at, "\n")
			break
		}
		if time.Now().After(end) {
			t.Fatalf("hold serve does not start:\n%s", log)
		}
	}
	return base, func() {
		t.Helper()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("hold serve exited with %v:\n%s", err, log)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// `hold serve` serves the account and nothing else. Commands that need the data folder
// fail meanwhile, and `hold status` queries the server.
func TestHoldServe(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		t.Run(map[bool]string{true: "at http.addr of the options", false: "at the registry's"}[own], func(t *testing.T) {
			t.Parallel()
			addr := freeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			options := fmt.Sprintf("hold: {hostname: \"localhost:%s\", reserve: 1MiB}", port)
			env := "http: {addr: \"" + addr + "\", draintimeout: 1s}"
			if own {
				options += "\nhttp: {addr: \"" + addr + "\"}"
			}
			dir := newHold(t, options)
			if !own {
				raw, err := os.ReadFile(filepath.Join(dir, "c.yml"))
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, "c.yml"), strings.Replace(string(raw), "http: {addr: \"127.0.0.1:0\", draintimeout: 1s}", env, 1))
			}
			base, stop := startHoldServe(t, dir)
			if base != "http://"+addr {
				t.Errorf("served at %s, want http://%s", base, addr)
			}
			did := "did:web:localhost%3A" + port
			if status, body := get(t, base+"/.well-known/did.json"); status != 200 || !strings.Contains(body, did) {
				t.Errorf("did.json: %d %s", status, body)
			}
			status, body := get(t, base+"/xrpc/com.atproto.sync.getLatestCommit?did=did:web:localhost%253A"+port)
			var head struct{ Rev string }
			if err := json.Unmarshal([]byte(body), &head); status != 200 || err != nil || head.Rev == "" {
				t.Errorf("getLatestCommit: %d %s", status, body)
			}
			if status, _ := get(t, base+"/v2/"); status != 404 {
				t.Errorf("/v2/: status %d, want 404", status)
			}
			expect(t, dir, 0, []string{"hold", "status", "c.yml"}, "account  "+did, "server   running", "head     "+head.Rev, "health   ok")
			expect(t, dir, 1, []string{"hold", "init", "c.yml"}, "a server is using the data folder ./data: stop it first")
			for _, command := range []string{"verify", "repair", "export", "serve"} {
				expect(t, dir, 1, []string{"hold", command, "c.yml"}, "data")
			}
			expect(t, dir, 1, []string{"hold", "verify", "c.yml"}, "a server is using the data folder ./data: stop it first")
			expect(t, dir, 1, []string{"hold", "key", "rotate", "c.yml"}, "a server is using")
			stop()
			expect(t, dir, 0, []string{"hold", "verify", "c.yml"}, "is valid")
		})
	}
}
