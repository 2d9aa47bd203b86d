package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// A disk flips bits in the hold's tables. The hold serves nothing that it cannot
// verify, and the registry continues. Afterwards `hold verify` reports the damage, and
// `hold repair` repairs it or requires a backup.
func TestHoldBitFlipped(t *testing.T) {
	t.Parallel()
	for _, damage := range someCases(t, []struct {
		name  string
		every int // bytes
	}{{"once", 1 << 30}, {"sparse", 40_000}, {"dense", 500}}) {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			s.fill(2000)
			s.start() // moves the log into tables
			notes := s.noteCIDs()
			s.stop()
			backup := filepath.Join(s.dir, "backup")
			if err := os.CopyFS(backup, os.DirFS(filepath.Join(s.dir, "tidings", "hold"))); err != nil {
				t.Fatal(err)
			}
			flip(t, filepath.Join(s.dir, "tidings", "hold"), damage.every)
			s.start()
			s.pushAndPull("a", "b")
			refused := 0
			for key, cid := range notes {
				res, body, err := s.do("GET", "/xrpc/"+noteRecord+s.did+"&rkey="+key, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				var got record
				switch err := json.Unmarshal(body, &got); {
				case err != nil, res.StatusCode == http.StatusOK && (got.CID != cid || got.Value["text"] != key):
					t.Errorf("%s: %s %s (%v)", key, res.Status, body, err)
				case res.StatusCode == http.StatusOK:
				case res.StatusCode < 500:
					t.Errorf("%s: %s %s", key, res.Status, body)
				default:
					refused++
				}
			}
			if refused == 0 && damage.every < 1<<30 {
				t.Error("no flipped bit was detected")
			}
			s.checkProofs(notes)
			if refused > 0 {
				s.checkHoldFailing("")
			}
			if err := s.terminate(); err != nil && !strings.Contains(s.log.String(), "repo stopped writing") {
				t.Errorf("the server exited with %v\n%s", err, s.log)
			}
			left := s.repairAndCheck(notes, backup)
			t.Logf("%d of %d records refused, %d left after repair", refused, len(notes), left)
		})
	}
}

// checkProofs gets records with their proofs, and the whole repo. Each response
// is complete and correct, or an error.
func (s *server) checkProofs(notes map[string]string) {
	s.t.Helper()
	get := func(path string) (*http.Response, []byte) {
		s.t.Helper()
		res, body, err := s.do("GET", "/xrpc/"+path, "", nil)
		if err != nil { // an incomplete response
			return nil, nil
		}
		if res.StatusCode != http.StatusOK && res.StatusCode < 500 {
			s.t.Errorf("%s: %s %s", path, res.Status, body)
		}
		return res, body
	}
	if res, car := get("com.atproto.sync.getRepo?did=" + s.did); res != nil && res.StatusCode == http.StatusOK {
		_, r, err := indigo.LoadRepoFromCAR(s.t.Context(), bytes.NewReader(car))
		if err != nil || r.MST.IsPartial() {
			s.t.Errorf("getRepo: %v", err)
		}
	}
	asked := 0
	for key, want := range notes {
		if asked++; asked > 200 {
			break
		}
		res, car := get("com.atproto.sync.getRecord?collection=com.example.note&did=" + s.did + "&rkey=" + key)
		if res == nil || res.StatusCode != http.StatusOK {
			continue
		}
		_, r, err := indigo.LoadRepoFromCAR(s.t.Context(), bytes.NewReader(car))
		if err != nil {
			s.t.Errorf("%s: %v", key, err)
			continue
		}
		if got, err := r.GetRecordCID(s.t.Context(), "com.example.note", syntax.RecordKey(key)); err != nil || got.String() != want {
			s.t.Errorf("%s: proof of %v, want %s (%v)", key, got, want, err)
		}
	}
	res, body := get("com.atproto.repo.listRecords?limit=100&collection=com.example.note&repo=" + s.did)
	if res != nil && res.StatusCode == http.StatusOK {
		var page struct{ Records []record }
		if err := json.Unmarshal(body, &page); err != nil {
			s.t.Error(err)
		}
		for _, r := range page.Records {
			if key := r.URI[strings.LastIndexByte(r.URI, '/')+1:]; notes[key] != r.CID || r.Value["text"] != key {
				s.t.Errorf("listRecords: %v, want %s", r, notes[key])
			}
		}
	}
}

// repairAndCheck runs `hold verify` and `hold repair`, restores the backup if repair
// requires it, and checks that no record is new or changed. It returns the number of
// records.
func (s *server) repairAndCheck(notes map[string]string, backup string) (left int) {
	s.t.Helper()
	out, code := s.run("hold", "verify", s.config)
	switch {
	case code == 0 && strings.Contains(out, "is valid"):
	case code == 2 && strings.Contains(out, "the repo is damaged"):
	default:
		s.t.Errorf("hold verify ends with %d:\n%s", code, out)
	}
	out, code = s.run("hold", "repair", s.config)
	if code != 0 && strings.Contains(out, "--without-lost") {
		out, code = s.run("hold", "repair", "--without-lost", s.config)
	}
	restored := code != 0 && strings.Contains(out, "restore a backup")
	if restored {
		code = 0
		dir := filepath.Join(s.dir, "tidings", "hold")
		if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(backup))); err != nil {
			s.t.Fatal(err)
		}
	}
	if code != 0 {
		s.t.Fatalf("hold repair ends with %d:\n%s", code, out)
	}
	if out, code := s.run("hold", "verify", s.config); code != 0 || !strings.Contains(out, "is valid") {
		s.t.Errorf("hold verify ends with %d after repair:\n%s", code, out)
	}
	s.start()
	s.waitDrained()
	after := s.noteCIDs()
	for key, cid := range after {
		if notes[key] != cid {
			s.t.Errorf("%s is %s after repair, was %s", key, cid, notes[key])
		}
	}
	s.verifyRepo()
	if restored && len(after) != len(notes) {
		s.t.Errorf("%d records after restoring the backup, want %d", len(after), len(notes))
	}
	if !restored {
		s.checkTotals(s.t, map[string]int{"oss/app": 2}, 4, 2)
	}
	s.stop()
	return len(after)
}

// run runs a command and returns its output and exit code.
func (s *server) run(args ...string) (out string, code int) {
	s.t.Helper()
	cmd := s.command(args...)
	text, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// fill writes notes to the repo of a stopped server. Now, if given, is the
// clock of the process that writes them.
func (s *server) fill(n int, now ...time.Time) {
	s.t.Helper()
	data := filepath.Join(s.dir, "tidings")
	cfg := hold.RepoConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: strings.Replace(s.host, "127.0.0.1", "localhost", 1), Reserve: 1}
	if len(now) > 0 {
		cfg.Now = func() time.Time { return now[0] }
	}
	r, _, err := hold.OpenRepo(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	for from := 0; from < n; from += 200 {
		var writes []repo.Write
		for i := from; i < min(n, from+200); i++ {
			writes = append(writes, noteWrite(s.t, fmt.Sprint("note", i)))
		}
		if _, err := r.Apply(context.Background(), writes, nil); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func noteWrite(t *testing.T, key string) repo.Write {
	t.Helper()
	content, err := lexicon.Encode(map[string]any{"$type": "com.example.note", "text": key, "more": strings.Repeat(key, 20)})
	if err != nil {
		t.Fatal(err)
	}
	return repo.Write{Action: repo.Create, Collection: "com.example.note", RKey: key, Record: content}
}

// noteCIDs returns the CID of each note, by key.
func (s *server) noteCIDs() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, r := range s.records(s.t, s.did, "com.example.note") {
		all[r.Value["text"].(string)] = r.CID
	}
	return all
}

// flip flips a bit in each table and one more in every so many bytes.
func flip(t *testing.T, dir string, every int) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal("no tables", err)
	}
	for _, name := range tables {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := rand.IntN(min(len(content), every)); at < len(content); at += every {
			content[at] ^= 1 << rand.IntN(8)
		}
		write(t, name, string(content))
	}
}

// After one start with a clock that is a year ahead, the hold signs nothing that the
// network would drop and reports this, until it is repaired. Pushes are accepted
// meanwhile.
func TestHoldClockAhead(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	s.fill(3, time.Now().AddDate(1, 0, 0))
	s.start()
	session, before := s.login(), s.noteCIDs()
	s.pushAndPull("a", "b")
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("during"), http.StatusServiceUnavailable, "ClockBehind", session...)
	s.waitForLog("correct the system clock")
	s.checkHoldFailing("clock is behind")
	s.verifyRepo()
	if after := s.noteCIDs(); len(after) != 3 || !maps.Equal(before, after) {
		t.Errorf("%v, before %v", after, before)
	}
	s.stop()
	if out, err := s.command("hold", "repair", s.config).CombinedOutput(); err != nil {
		t.Fatalf("hold repair: %v\n%s", err, out)
	}
	s.start()
	s.waitDrained()
	s.checkXRPC("POST", "com.atproto.repo.createRecord", s.note("after"), http.StatusOK, "", session...)
	s.checkTotals(t, map[string]int{"oss/app": 2}, 4, 2)
}
