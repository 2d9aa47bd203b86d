package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

const elsewhere = "https://pds.example.com"

// setMovedTo sets hold.moved_to of the configuration; "" removes it.
func (s *server) setMovedTo(to string) {
	s.t.Helper()
	raw, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(raw), "reserve: 1MiB")
	_, after, _ := strings.Cut(rest, "\n")
	if to != "" {
		to = fmt.Sprintf(", moved_to: {service: %q}", to)
	}
	before = strings.Replace(before, "level: error", "level: warn", 1)
	write(s.t, s.config, before+"reserve: 1MiB"+to+"}\n"+after)
}

type movedHealth struct {
	Status string
	Hold   struct{ Status, MovedTo string }
	Sinks  []struct {
		Sink  string
		Depth uint64
	}
}

// pending is the number of events pending for records and posts.
func (h movedHealth) pending() (n uint64) {
	for _, s := range h.Sinks {
		if s.Sink == "records" || s.Sink == "announce" {
			n += s.Depth
		}
	}
	return n
}

// The account moves to another host: the registry continues, and records and posts
// stay pending. It moves back with an export of the other host, and the pending
// records are written.
func TestHoldMovedAway(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	s.push(t, "oss/app", "v1", newImage(2))
	s.waitDrained()
	before := len(s.records(t, s.did, layerCollection))
	s.stop()
	car := filepath.Join(s.dir, "moved.car")
	run := func(code int, args []string, says ...string) {
		t.Helper()
		args = append(args[:len(args):len(args)], s.config)
		if args[1] == "import" {
			args = append(args, car)
		}
		expect(t, s.dir, code, args, says...)
	}
	expect(t, s.dir, 0, []string{"hold", "export", s.config, car}, "Exported")
	s.setMovedTo(elsewhere)
	run(0, []string{"config", "check"}, "none; the account did:web:localhost", "has moved to "+elsewhere, "warning: hold.moved_to: the account is at")
	run(0, []string{"hold", "status"}, "to "+elsewhere+", by hold.moved_to", "the next start announces that the account has moved")

	s.start()
	if _, body, err := s.do("GET", "/.well-known/did.json", "", nil); err != nil || !strings.Contains(string(body), elsewhere) {
		t.Errorf("did.json: %s %v", body, err)
	}
	if !strings.Contains(s.log.String(), "the account has moved: did.json shows its new host") {
		t.Errorf("start does not log that the account has moved:\n%s", s.log)
	}
	pushed := newImage(3)
	s.push(t, "oss/app", "v2", pushed)
	if status, err := s.get("oss/app", "v2"); status != 200 || err != nil {
		t.Errorf("pull: %d %v", status, err)
	}
	var h movedHealth
	for end := time.Now().Add(30 * time.Second); s.counts("oss/app").Pulls == 0 || !strings.Contains(s.log.String(), "account has moved away, to "+elsewhere); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d pulls counted; the log:\n%s", s.counts("oss/app").Pulls, s.log)
		}
	}
	s.json(t, "/tidings/api/v1/health", &h, s.token()...)
	if h.Status != "degraded" || h.Hold.Status != "moved" || h.Hold.MovedTo != elsewhere || h.pending() == 0 {
		t.Errorf("health: %+v", h)
	}
	run(0, []string{"hold", "status"}, "server   running", "health   moved")
	s.stop()

	run(0, []string{"hold", "status"}, "the move has been announced, and writes are refused")
	run(0, []string{"hold", "verify"}, "is valid")
	run(0, []string{"hold", "init"}, "Nothing to do: the account has moved to "+elsewhere)
	for _, command := range [][]string{{"hold", "import"}, {"hold", "repair"}, {"hold", "key", "rotate"}} {
		run(1, command, "the account has moved to "+elsewhere+", so nothing is changed here; to move it back, remove hold.moved_to first")
	}
	expect(t, s.dir, 0, []string{"hold", "export", s.config, filepath.Join(s.dir, "still.car")}, "Exported")

	s.setMovedTo("")
	run(0, []string{"hold", "status"}, "the account was at "+elsewhere+"; the next start announces that it is back")
	run(1, []string{"hold", "key", "rotate"}, "account has moved away, to "+elsewhere)
	run(0, []string{"hold", "import"}, "Imported", "records")
	s.start()
	s.waitDrained()
	if n := len(s.records(t, s.did, layerCollection)); n != before+3 {
		t.Errorf("%d layer records, want %d and 3 that were pending", n, before)
	}
	h = movedHealth{}
	s.json(t, "/tidings/api/v1/health", &h, s.token()...)
	if h.Status != "ok" || h.Hold.Status != "ok" || h.Hold.MovedTo != "" {
		t.Errorf("health: %+v", h)
	}
	s.stop()
	run(0, []string{"hold", "verify"}, "is valid")
}

// No account is created if hold.moved_to is set.
func TestHoldInitOfMoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data\nhold: {hostname: localhost, moved_to: {service: \""+elsewhere+"\"}}")
	expect(t, dir, 1, []string{"hold", "init", "c.yml"}, "the account has moved to "+elsewhere)
	if cli.Exists(filepath.Join(dir, "data")) {
		t.Error("a data folder was created")
	}
}
