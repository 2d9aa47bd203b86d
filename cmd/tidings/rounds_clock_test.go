package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/post"
)

const year = 365 * 24 * time.Hour

// setClock sets the offset of the program's clock, whether it is running or not.
func (s *server) setClock(by time.Duration) {
	s.t.Helper()
	file := filepath.Join(s.dir, "clock")
	if err := writeClock(file, by); err != nil {
		s.t.Fatal(err)
	}
	if len(s.env) == 0 {
		s.env = []string{clockFile + "=" + file}
	}
	if s.cmd != nil {
		time.Sleep(4 * clockRead)
	}
}

// writeClock replaces the file that clockFile names.
func writeClock(file string, by time.Duration) error {
	return errors.Join(os.WriteFile(file+".new", []byte(by.String()), 0o600), os.Rename(file+".new", file))
}

// correctClock does what an operator does after the clock was wrong: it corrects
// the clock and repairs the account's repo.
func (s *server) correctClock() (repaired bool) {
	s.t.Helper()
	s.setClock(0)
	out, err := s.command("hold", "repair", s.config).CombinedOutput()
	if strings.Contains(string(out), "--clock-is-right") { // all timestamps in the repository are ahead
		out, err = s.command("hold", "repair", "--clock-is-right", s.config).CombinedOutput()
	}
	if err != nil {
		s.t.Errorf("hold repair: %v\n%s", err, out)
	}
	return strings.Contains(string(out), "repaired:")
}

// tokenDated is token with the clock of the sender at another time.
func (a *sender) tokenDated(t *testing.T, s *server, now time.Time) string {
	t.Helper()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"alg": "ES256K", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": a.did, "aud": unescaped(s.did), "lxm": notifyManifest, "jti": fmt.Sprint(rand.Uint64()),
		"iat": now.Unix(), "exp": now.Add(4 * time.Minute).Unix(),
	})
	signature, err := a.key.HashAndSign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// trust configures s to accept notifications of a.
func (s *server) trust(a *sender) {
	s.t.Helper()
	s.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, registries: [%q]", a.did))
}

// acceptedOnce checks that s accepts an unused token, and only once.
func (a *sender) acceptedOnce(t *testing.T, s *server, token string) {
	t.Helper()
	m := newImage(1)
	if status, answer := s.notify(m, "pull", a.did, token, ""); status != 200 {
		t.Errorf("unused token: %d %s", status, answer)
	}
	a.rejected(t, s, token)
}

// rejected checks that s refuses a used token.
func (a *sender) rejected(t *testing.T, s *server, token string) {
	t.Helper()
	if status, answer := s.notify(newImage(1), "pull", a.did, token, ""); status != 401 {
		t.Errorf("used token: %d %s", status, answer)
	}
}

type clockHealth struct {
	Sinks []struct {
		Sink   string
		Depth  int64
		Oldest int64 `json:"oldestSeconds"`
	}
	Hold  struct{ Status, Reason string }
	Clock struct{ Jumped string }
}

func (s *server) clockHealth() (h clockHealth) {
	s.t.Helper()
	s.json(s.t, "/tidings/api/v1/health", &h, s.token()...)
	return h
}

// checkCurrent pushes to a running registry whose clock is correct, and checks
// records, post, counts of the day and timestamps.
func (s *server) checkCurrent(t *testing.T, repository string) {
	t.Helper()
	m := newImage(2)
	s.push(t, repository, "v1", m)
	if status, err := s.get(repository, "v1"); status != 200 {
		t.Errorf("pull: %d %v", status, err)
	}
	s.waitDrained()
	posts, records := 0, 0
	for _, r := range s.records(t, s.did, postCollection) {
		if image, _ := post.Origin(r.Value); image.Digest == m.digest {
			posts++
			if at, err := time.Parse(time.RFC3339, r.Value["createdAt"].(string)); err != nil || time.Since(at).Abs() > 5*time.Minute {
				t.Errorf("post created at %v", r.Value["createdAt"])
			}
		}
	}
	for _, r := range s.records(t, s.did, layerCollection) {
		if strings.HasSuffix(r.Value["manifest"].(string), m.digest[len("sha256:"):]) {
			records++
		}
	}
	if posts != 1 || records != 2 {
		t.Errorf("%s has %d posts and %d records, want 1 and 2", repository, posts, records)
	}
	var daily struct {
		Days []struct {
			Date          string
			Pulls, Pushes int64
		}
	}
	s.json(t, "/tidings/api/v1/repositories/"+repository+"/daily?days=1", &daily)
	today := time.Now().UTC().Format(time.DateOnly)
	if len(daily.Days) != 1 || daily.Days[0].Pushes != 1 || daily.Days[0].Pulls != 1 || daily.Days[0].Date != today {
		t.Errorf("today: %+v", daily)
	}
	var answer struct {
		Pushes []struct {
			Time       time.Time
			Repository string
			State      string
		}
	}
	s.json(t, "/tidings/api/v1/pushes?limit=1", &answer)
	if len(answer.Pushes) != 1 || answer.Pushes[0].Repository != repository || time.Since(answer.Pushes[0].Time).Abs() > time.Minute || answer.Pushes[0].State != "done" {
		t.Errorf("last push: %+v", answer.Pushes)
	}
	var repo struct{ LastPull, LastPush time.Time }
	s.json(t, "/tidings/api/v1/repositories/"+repository, &repo)
	if time.Since(repo.LastPull).Abs() > time.Minute || time.Since(repo.LastPush).Abs() > time.Minute {
		t.Errorf("%s: last pull and push at %+v", repository, repo)
	}
	h := s.clockHealth()
	for _, sink := range h.Sinks {
		if sink.Oldest > 30 {
			t.Errorf("health: %+v", h)
		}
	}
	if h.Hold.Status != "ok" {
		t.Errorf("health: %+v", h)
	}
}

// The clock is set to a wrong time, while the registry is running or stopped, and
// corrected later. No event of that time is lost.
func TestClockSet(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		for _, by := range someCases(t, []time.Duration{3 * time.Minute, time.Hour, year, -3 * time.Minute, -time.Hour, -year}) {
			t.Run(fmt.Sprint(by, running), func(t *testing.T) {
				t.Parallel()
				a, s := newSender(t), newServer(t, settings{})
				s.trust(a)
				s.setClock(0)
				set := func(by time.Duration) {
					if !running {
						s.stop()
					}
					s.setClock(by)
					if !running {
						s.start()
					}
				}
				s.start()
				m := newImage(2)
				s.push(t, "oss/before", "v1", m)
				before := a.token(t, s)
				a.acceptedOnce(t, s, before)
				s.waitDrained()

				set(by)
				meanwhile := newImage(1)
				s.push(t, "oss/meanwhile", "v1", meanwhile)
				wrong := a.tokenDated(t, s, time.Now().Add(by))
				a.acceptedOnce(t, s, wrong)
				a.rejected(t, s, before)
				if by > 0 {
					s.waitDrained() // the account signs commits that are dated ahead
				} else if by < -time.Minute {
					if h := s.clockHealth(); h.Hold.Status != "failing" || !strings.Contains(h.Hold.Reason, "clock") {
						t.Errorf("clock set back: health %+v", h)
					}
				}
				if h := s.clockHealth(); running != (h.Clock.Jumped != "") || running && strings.HasPrefix(h.Clock.Jumped, "-") != (by < 0) {
					t.Errorf("health reports a jump of %q", h.Clock.Jumped)
				}

				set(0)
				a.rejected(t, s, before)
				a.rejected(t, s, wrong)
				last := newImage(1)
				s.push(t, "oss/after", "v1", last)
				if by > 0 {
					if h := s.clockHealth(); h.Hold.Status != "failing" || !strings.Contains(h.Hold.Reason, "clock") {
						t.Errorf("account dated ahead: health %+v", h)
					}
				}
				if by > 0 || !running {
					s.stop()
					if s.correctClock() != (by > 0) {
						t.Errorf("hold repair changed something: %v", by <= 0)
					}
					s.start()
				}
				s.waitDrained()
				s.checkCurrent(t, "oss/now")
				a.rejected(t, s, before)
				a.rejected(t, s, wrong)
				// One of the posts is a summary if an event looks too old for a post of its own.
				s.checkTotals(t, map[string]int{"oss/before": 1, "oss/meanwhile": 1, "oss/after": 1, "oss/now": 1}, 6, 4)
				s.stop()
				s.checkConsistent(t)
			})
		}
	}
}

// The workload runs with a clock that jumps up to a year ahead and back.
func TestClockRounds(t *testing.T) {
	t.Parallel()
	a, s := newSender(t), newServer(t, settings{})
	s.trust(a)
	h := newWorkload(t, s)
	h.expected = append(h.expected, "the system clock has jumped", "record keys are ahead of the system clock", "clock is behind the repo",
		"the account's repo is older than the state") // logged by hold repair
	r := rand.New(rand.NewPCG(h.seed, 0))
	wrong := func() time.Duration {
		by := []time.Duration{5 * time.Minute, 10 * time.Hour, 3 * 24 * time.Hour, 2 * year}[r.IntN(4)]
		return (rand.N(by) - by/2).Round(time.Second)
	}
	var used []string
	n := rounds(t, 3)
	for round := range n {
		by := wrong()
		h.setClock(by)
		h.start()
		for range r.IntN(3) {
			token := a.tokenDated(t, s, time.Now().Add(by))
			a.acceptedOnce(t, s, token)
			used = append(used, token)
		}
		stop := make(chan struct{})
		end := make(chan struct{})
		go func() {
			for range r.IntN(3) {
				time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				h.setClock(wrong())
			}
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
			if round%2 == 0 {
				h.cmd.Process.Kill()
			}
			close(stop)
			close(end)
		}()
		h.work(uint64(round), stop)
		<-end
		if round%2 == 0 {
			h.crash()
		} else {
			h.stop()
			h.checkLog()
		}
	}
	h.correctClock()
	h.check(t, func(snapshot) {
		h.checkCurrent(t, "oss/now")
		for _, token := range used {
			a.rejected(t, s, token)
		}
	})
}
