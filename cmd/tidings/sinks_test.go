package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/notifier/inspect"
)

// The commands sinks and journal of a running and of a stopped registry, which is killed
// while a sink is paused, and then drained.
func TestSinks(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: "announce: {tags: [\"*\"], collect: 100ms, cooldown: 0s, daily_limit: 0}"})
	run := func(code int, args []string, says ...string) string {
		t.Helper()
		out, got := s.run(args...)
		if got != code {
			t.Errorf("%v: exit code %d, want %d", args, got, code)
		}
		for _, want := range says {
			if !strings.Contains(out, want) {
				t.Errorf("%v: missing %q:\n%s", args, want, out)
			}
		}
		return out
	}
	run(1, []string{"sinks", "list", s.config}, "not running", "tidings serve "+s.config)
	run(1, []string{"journal", "inspect", s.config}, "there is no journal in ")
	s.start()
	run(0, []string{"sinks", "pause", s.config, "records"}, "records", "paused by operator since")
	run(1, []string{"sinks", "pause", s.config, "other"}, "no such sink is configured: other")
	run(1, []string{"status", s.config}, "degraded", "sink records (pushes) is paused by operator since")
	s.push(t, "oss/app", "v1", newImage(2))
	s.push(t, "oss/app", "v2", newImage(2))
	run(0, []string{"journal", "inspect", "--events", "1", s.config}, "records (pushes)", "2 pending events, paused by operator since", "1: 20", "push oss/app:v1@sha256:")
	run(1, []string{"sinks", "skip", s.config, "records"}, "pass --yes")
	run(0, []string{"sinks", "skip", "--yes", s.config, "records"}, "Event 1 skipped; `tidings dead list` shows it.\n")
	run(1, []string{"sinks", "rewind", "--yes", "--to", "0", s.config, "counters"}, "only the sinks records and announce can be rewound")
	// Nobody is asked about what would be refused.
	for args, reason := range map[string]string{
		"skip --to 9 records":     "invalid position: the pending events of records of pushes are 1 to 2",
		"rewind --to 0 counters":  "only the sinks records and announce can be rewound",
		"rewind --to 9 records":   "invalid position: the sink records is at 0 already",
		"skip --stream pulls any": "no such sink is configured: any of pulls",
	} {
		flags := strings.Fields(args)
		out := run(1, append(append([]string{"sinks"}, flags[:len(flags)-1]...), s.config, flags[len(flags)-1]), "Error: "+reason)
		if strings.Contains(out, "[y/N]") {
			t.Errorf("%s asks:\n%s", args, out)
		}
	}
	s.kill()

	data := filepath.Join(s.dir, "tidings")
	before := listFiles(t, data)
	var report inspect.Report
	out := run(0, []string{"journal", "inspect", "--json", "--events", "9", s.config})
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, sink := range report.Sinks {
		switch {
		case sink.Sink == "records" && (sink.Pending != 2 || len(sink.Events) != 2 || sink.Paused.IsZero() || sink.Events[1].Tag != "v2"),
			sink.Sink == "counters" && sink.Stream == "pushes" && sink.Position+sink.Pending != 2: // it may not have handled them before the kill
			t.Errorf("sink %+v", sink)
		}
	}
	if after := listFiles(t, data); after != before {
		t.Errorf("inspect has changed the folder:\n%s\nbefore:\n%s", after, before)
	}
	run(1, []string{"journal", "drain", s.config}, "the sink records is paused by operator since 20", "Z, with 2 pending events; `tidings sinks resume`")
	s.start()
	run(0, []string{"sinks", "resume", s.config, "records"})
	s.waitDrained()
	run(0, []string{"dead", "retry", "--json", s.config, "records/1"}, `{"letter":"records/1","state":"retrying"}`)
	run(1, []string{"journal", "drain", s.config}, "a server is using the data folder")
	s.kill()
	run(0, []string{"journal", "drain", s.config}, "The journal is empty")
	s.start()
	if n := len(s.records(t, s.did, layerCollection)); n != 4 {
		t.Errorf("%d layer records, want 4", n)
	}
	run(0, []string{"status", s.config})
	s.kill()
	s.startHold()
	run(0, []string{"status", s.config}, "hold ")
	run(1, []string{"sinks", "list", s.config + ".none"}, "no such file")
}

// listFiles lists the files below a folder with their sizes and times.
func listFiles(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Name() != "LOCK" { // Pebble truncates it
			list.WriteString(path + " " + info.ModTime().String() + " " + cli.Size(info.Size()) + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// While the PDS does not answer, journal drain fails at its timeout and says what is pending;
// afterwards it delivers it, without the registry.
func TestJournalDrain(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.start()
	s.pds.set(func(p *fakePDS) { p.fault = http.NotFound })
	s.push(t, "oss/app", "v1", newImage(2))
	s.kill()
	if out, code := s.run("journal", "drain", s.config, "--timeout", "2s"); code != 1 || !strings.Contains(out, "not everything was processed within 2s") || !strings.Contains(out, "1 pending event at records (pushes)") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	s.pds.set(func(p *fakePDS) { p.fault = nil })
	if out, code := s.run("journal", "drain", s.config, "--timeout", "30s"); code != 0 || !strings.Contains(out, "The journal is empty: 1 pending event processed.") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if n := s.pds.count("io.atcr.hold.layer"); n != 2 {
		t.Errorf("%d layer records, want 2", n)
	}
}
