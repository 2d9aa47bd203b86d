package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// A disk that flips bits of the hold's tables, one of them or one in each of
// many places: whatever the hold can't prove to be right it doesn't show, and
// the registry goes on.
func TestHoldBitFlipped(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]int{"once": 1 << 30, "now and then": 40_000, "everywhere": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			s.fill(2000)
			s.start() // which moves the log into tables
			truth := s.truth()
			s.stop()
			flip(t, filepath.Join(s.dir, "tidings", "hold"), every)
			s.start()
			s.serves("a", "b")
			refused := 0
			for key, cid := range truth {
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
			if refused == 0 && every < 1<<30 {
				t.Error("no bit that counts was flipped")
			}
			if refused > 0 {
				s.failing()
			}
			t.Logf("%d of %d records refused", refused, len(truth))
		})
	}
}

// fill writes notes into the repository of a server that doesn't run, with a
// clock that may be wrong, as an earlier process would have.
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

// truth is the CID of each note, by key.
func (s *server) truth() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, r := range s.records(s.t, s.did, "com.example.note") {
		all[r.Value["text"].(string)] = r.CID
	}
	return all
}

// flip changes a bit in each table, and in every so many bytes one more.
func flip(t *testing.T, dir string, every int) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal("there are no tables", err)
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

// After one boot with a clock a year ahead the hold signs nothing that the
// network would drop, says so, and goes on when it is mended; meanwhile the
// registry takes pushes.
func TestHoldClockAhead(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.allowLogin()
	s.fill(3, time.Now().AddDate(1, 0, 0))
	s.start()
	session, before := s.login(), s.truth()
	s.serves("a", "b")
	s.answers("POST", "com.atproto.repo.createRecord", s.note("during"), http.StatusServiceUnavailable, "ClockBehind", session...)
	s.says("set this machine's clock right")
	s.failing()
	s.verified()
	if after := s.truth(); len(after) != 3 || !maps.Equal(before, after) {
		t.Errorf("%v, before %v", after, before)
	}
	s.stop()
	if out, err := s.command("hold", "repair", s.config).CombinedOutput(); err != nil {
		t.Fatalf("hold repair: %v\n%s", err, out)
	}
	s.start()
	s.drained()
	s.answers("POST", "com.atproto.repo.createRecord", s.note("after"), http.StatusOK, "", session...)
	s.exactly(t, map[string]int{"oss/app": 2}, 4, 2)
}
