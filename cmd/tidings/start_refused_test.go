package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// With an invalid configuration or damaged files the start fails with an error that
// says what to do.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		corrupt func(t *testing.T, s *server)
		want    []string
	}{
		"misspelt option": {
			corrupt: func(t *testing.T, s *server) { s.edit("announce:", "anounce:") },
			want:    []string{"anounce", "did you mean", "announce"},
		},
		"misspelt name": {
			corrupt: func(t *testing.T, s *server) { s.edit("name: tidings", "name: tiding") },
			want:    []string{"middleware.repository[0].name", "did you mean tidings?"},
		},
		"two writers": {
			corrupt: func(t *testing.T, s *server) {
				s.edit("hold:", "account: {service: \"https://pds.example.com\", identifier: a.example.com, password_file: /x}\n        hold:")
			},
			want: []string{"account", "hold", "only one of them"},
		},
		"bad DID": {
			corrupt: func(t *testing.T, s *server) { s.edit("hold:", "owner: not-a-did\n        hold:") },
			want:    []string{"options.owner", "not-a-did"},
		},
		"bad glob": {
			corrupt: func(t *testing.T, s *server) { s.edit("oss/**", "oss/[") },
			want:    []string{"options.public", "oss/["},
		},
		"announce on an open registry": {
			corrupt: func(t *testing.T, s *server) { s.edit("127.0.0.1:", "0.0.0.0:") },
			want:    []string{"options.announce", "anonymous_pushes"},
		},
		"data folder in use": {
			corrupt: func(t *testing.T, s *server) {
				s.start()
				other := filepath.Join(s.dir, "other.yml")
				s.edit(s.host, freeAddr(t))
				s.config = other
			},
			want: []string{"in use by another process", "options.data"},
		},
		"data folder that is a file": {
			corrupt: func(t *testing.T, s *server) {
				write(t, filepath.Join(s.dir, "file"), "")
				s.edit("/tidings\n", "/file/tidings\n")
			},
			want: []string{"data folder", "options.data"},
		},
		"key missing": {
			corrupt: func(t *testing.T, s *server) {
				if err := os.Remove(filepath.Join(s.dir, "tidings", "hold.key")); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{"hold.key", "missing", "backup"},
		},
		"no account": {
			corrupt: func(t *testing.T, s *server) {
				if err := os.RemoveAll(filepath.Join(s.dir, "tidings")); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{"tidings hold init"},
		},
		"another hostname": {
			corrupt: func(t *testing.T, s *server) {
				s.edit("hostname: \"localhost:", "hostname: \"localhost:1\", login: false} #")
			},
			want: []string{"did:web:localhost", "hold init --new"},
		},
		"inline secret": {
			corrupt: func(t *testing.T, s *server) {
				s.edit("hold:", "redis: {addrs: [\"127.0.0.1:1\"], password: hunter2}\n        hold:")
			},
			want: []string{"password_file"},
		},
		"empty token file": {
			corrupt: func(t *testing.T, s *server) { write(t, filepath.Join(s.dir, "token"), "\n") },
			want:    []string{"options.api.token_file", "token is empty"},
		},
		"damaged journal": {
			corrupt: func(t *testing.T, s *server) {
				s.start()
				for i := range 3 {
					s.push(t, "oss/app", fmt.Sprint("v", i), newImage(1))
				}
				s.waitDrained()
				s.stop()
				files, _ := filepath.Glob(filepath.Join(s.dir, "tidings", "journal", "push*"))
				if len(files) == 0 {
					t.Fatal("no segment")
				}
				content, err := os.ReadFile(files[0])
				if err != nil {
					t.Fatal(err)
				}
				content[len(bytes.TrimRight(content, "\x00"))/3] ^= 0x40 // zeros follow the records
				write(t, files[0], string(content))
			},
			want: []string{"journal", "damaged"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			test.corrupt(t, s)
			cmd := s.command("serve", s.config)
			out := &logBuffer{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the process ended without an error")
				}
			case <-time.After(20 * time.Second):
				cmd.Process.Kill()
				<-ended
				t.Error("the server started")
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("missing %q:\n%s", want, out)
				}
			}
			if strings.Contains(out.String(), "hunter2") {
				t.Errorf("a secret is printed:\n%s", out)
			}
		})
	}
}

// edit changes the configuration file, which a running server does not read again.
func (s *server) edit(old, new string) {
	s.t.Helper()
	content, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		s.t.Fatalf("%q is not in the configuration", old)
	}
	changed := strings.Replace(string(content), old, new, 1)
	write(s.t, s.config, changed)
	write(s.t, filepath.Join(s.dir, "other.yml"), changed)
}

// A token file that is missing does not stop the start, which says so. It is read once it
// exists.
func TestMissingTokenFile(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.edit("level: error", "level: warn")
	token := filepath.Join(s.dir, "token")
	content, err := os.ReadFile(token)
	if err == nil {
		err = os.Remove(token)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	if log := s.log.String(); !strings.Contains(log, "the token file is missing") || !strings.Contains(log, "options.api.token_file: open "+token) {
		t.Errorf("the log does not say that the token file is missing:\n%s", log)
	}
	write(t, token, string(content))
	var health any
	s.json(t, "/tidings/api/v1/health", &health, s.token()...)
	s.stop()
}

// With Redis down the registry serves and reports that it is degraded.
func TestRedisDownAtStart(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", freeAddr(t))})
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	s.waitDrained()
	var answer struct {
		Status string `json:"status"`
		Redis  struct {
			Status string `json:"status"`
			Reason string `json:"reason"`
		} `json:"redis"`
	}
	for end := time.Now().Add(10 * time.Second); answer.Redis.Status != "away" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.json(t, "/tidings/api/v1/health", &answer)
	}
	if answer.Status != "degraded" || answer.Redis.Status != "away" || answer.Redis.Reason != "Redis does not answer" {
		t.Errorf("health: %+v", answer)
	}
	if got := s.counts("oss/app").Pushes; got != 1 {
		t.Errorf("%d pushes counted locally, want 1", got)
	}
	s.stop()
}
