package main

import (
	"encoding/base64"
	"encoding/json"
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

// setClock sets the clock of the program, running or not, to a time before or
// after the right one.
func (s *server) setClock(by time.Duration) {
	s.t.Helper()
	file := filepath.Join(s.dir, "clock")
	write(s.t, file+".new", by.String())
	if err := os.Rename(file+".new", file); err != nil {
		s.t.Fatal(err)
	}
	if len(s.env) == 0 {
		s.env = []string{clockFile + "=" + file}
	}
	if s.cmd != nil {
		time.Sleep(4 * clockRead)
	}
}

// mendClock is what an operator does whose clock was wrong: it is set right, and
// the account's repository is repaired.
func (s *server) mendClock() (repaired bool) {
	s.t.Helper()
	s.setClock(0)
	out, err := s.command("hold", "repair", s.config).CombinedOutput()
	if strings.Contains(string(out), "--clock-is-right") { // all that it has kept is of the wrong time
		out, err = s.command("hold", "repair", "--clock-is-right", s.config).CombinedOutput()
	}
	if err != nil {
		s.t.Errorf("hold repair: %v\n%s", err, out)
	}
	return strings.Contains(string(out), "repaired:")
}

// tokenAt is token, made by a caller whose clock shows another time.
func (a *teller) tokenAt(t *testing.T, s *server, now time.Time) string {
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

// believes lets s believe what a tells of its images.
func (s *server) believes(a *teller) {
	s.t.Helper()
	s.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, registries: [%q]", a.did))
}

// once tells s with a token that was not used before, which must be accepted
// once.
func (a *teller) once(t *testing.T, s *server, token string) {
	t.Helper()
	m := newImage(1)
	if status, answer := s.tell(m, "pull", a.did, token, ""); status != 200 {
		t.Errorf("a new token: %d %s", status, answer)
	}
	a.never(t, s, token)
}

// never tells s with a token that was used.
func (a *teller) never(t *testing.T, s *server, token string) {
	t.Helper()
	if status, answer := s.tell(newImage(1), "pull", a.did, token, ""); status != 401 {
		t.Errorf("a used token: %d %s", status, answer)
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

// isNow checks a running registry whose clock is right: what is pushed is
// recorded and announced, counts today, and is shown with its time.
func (s *server) isNow(t *testing.T, repository string) {
	t.Helper()
	m := newImage(2)
	s.push(t, repository, "v1", m)
	if status, err := s.get(repository, "v1"); status != 200 {
		t.Errorf("pull: %d %v", status, err)
	}
	s.drained()
	posts, records := 0, 0
	for _, r := range s.records(t, s.did, postCollection) {
		if image, _ := post.Origin(r.Value); image.Digest == m.digest {
			posts++
			if at, err := time.Parse(time.RFC3339, r.Value["createdAt"].(string)); err != nil || time.Since(at).Abs() > 5*time.Minute {
				t.Errorf("the post is of %v", r.Value["createdAt"])
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
		t.Errorf("the last push is %+v", answer.Pushes)
	}
	var repo struct{ LastPull, LastPush time.Time }
	s.json(t, "/tidings/api/v1/repositories/"+repository, &repo)
	if time.Since(repo.LastPull).Abs() > time.Minute || time.Since(repo.LastPush).Abs() > time.Minute {
		t.Errorf("%s was last pulled and pushed at %+v", repository, repo)
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

// The clock is set while the registry runs, or while it does not, and set right
// again. What happened meanwhile is not lost, and all is well once it is right.
func TestClockSet(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{3 * time.Minute, time.Hour, year, -3 * time.Minute, -time.Hour, -year} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprint(by, running), func(t *testing.T) {
				t.Parallel()
				a, s := newTeller(t), newServer(t, settings{})
				s.believes(a)
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
				a.once(t, s, before)
				s.drained()

				set(by)
				meanwhile := newImage(1)
				s.push(t, "oss/meanwhile", "v1", meanwhile)
				wrong := a.tokenAt(t, s, time.Now().Add(by))
				a.once(t, s, wrong)
				a.never(t, s, before)
				if by > 0 {
					s.drained() // the account signs what is dated ahead
				} else if by < -time.Minute {
					if h := s.clockHealth(); h.Hold.Status != "failing" || !strings.Contains(h.Hold.Reason, "clock") {
						t.Errorf("the clock was set back, and health is %+v", h)
					}
				}
				if h := s.clockHealth(); running != (h.Clock.Jumped != "") || running && strings.HasPrefix(h.Clock.Jumped, "-") != (by < 0) {
					t.Errorf("health tells of a jump of %q", h.Clock.Jumped)
				}

				set(0)
				a.never(t, s, before)
				a.never(t, s, wrong)
				last := newImage(1)
				s.push(t, "oss/after", "v1", last)
				if by > 0 {
					if h := s.clockHealth(); h.Hold.Status != "failing" || !strings.Contains(h.Hold.Reason, "clock") {
						t.Errorf("the account is dated ahead, and health is %+v", h)
					}
				}
				if by > 0 || !running {
					s.stop()
					if s.mendClock() != (by > 0) {
						t.Errorf("hold repair has mended: %v", by <= 0)
					}
					s.start()
				}
				s.drained()
				s.isNow(t, "oss/now")
				a.never(t, s, before)
				a.never(t, s, wrong)
				posts := 4
				if by <= -time.Hour && !running {
					posts-- // an event of a year ago is no news; nothing says that it is not
				}
				s.exactly(t, map[string]int{"oss/before": 1, "oss/meanwhile": 1, "oss/after": 1, "oss/now": 1}, 6, posts)
				s.stop()
				s.agree(t)
			})
		}
	}
}

// The same requests as in the kill rounds, at any time of the last and the next
// year.
func TestClockRounds(t *testing.T) {
	t.Parallel()
	a, s := newTeller(t), newServer(t, settings{})
	s.believes(a)
	h := newHistory(t, s)
	h.expected = append(h.expected, "the machine's clock has jumped", "record keys are ahead of the machine's clock", "clock is behind the repository",
		"the account's repository is older than the state") // by hold repair
	r := rand.New(rand.NewPCG(h.seed, 0))
	wrong := func() time.Duration {
		by := []time.Duration{5 * time.Minute, 10 * time.Hour, 3 * 24 * time.Hour, 2 * year}[r.IntN(4)]
		return (rand.N(by) - by/2).Round(time.Second)
	}
	var used []string
	n := rounds(t, 5)
	for round := range n {
		by := wrong()
		h.setClock(by)
		h.start()
		for range r.IntN(3) {
			token := a.tokenAt(t, s, time.Now().Add(by))
			a.once(t, s, token)
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
			h.dies()
		} else {
			h.stop()
			h.ended()
		}
	}
	h.mendClock()
	h.settle(t)
	h.agree(t)
	h.start()
	f := h.look(t)
	records := h.recorded(t, f)
	for image, n := range f.posts {
		if n > 1 || !public(image) {
			t.Errorf("%s has %d posts", image, n)
		}
	}
	h.counted(t)
	h.isNow(t, "oss/now")
	for _, token := range used {
		a.never(t, s, token)
	}
	h.verified()
	h.stop()
	h.ended()
	h.agree(t)
	t.Logf("%d operations; %d images, %d records, %d posts, %d tokens", h.steps.Load(), len(h.order), records, len(f.posts), len(used))
	for _, p := range h.problems {
		t.Error(p)
	}
}
