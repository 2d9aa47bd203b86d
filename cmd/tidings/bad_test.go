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

// An operator's mistakes and a machine's failures: start ends with an error
// that says what to do, and touches nothing.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(t *testing.T, s *server)
		says  []string
	}{
		"misspelt option": {
			spoil: func(t *testing.T, s *server) { s.edit("announce:", "anounce:") },
			says:  []string{"anounce", "did you mean", "announce"},
		},
		"two writers": {
			spoil: func(t *testing.T, s *server) {
				s.edit("hold:", "account: {service: \"https://pds.example.com\", identifier: a.example.com, password_file: /x}\n        hold:")
			},
			says: []string{"account", "hold", "one writer"},
		},
		"bad DID": {
			spoil: func(t *testing.T, s *server) { s.edit("hold:", "owner: not-a-did\n        hold:") },
			says:  []string{"options.owner", "not-a-did"},
		},
		"bad glob": {
			spoil: func(t *testing.T, s *server) { s.edit("oss/**", "oss/[") },
			says:  []string{"options.public", "oss/["},
		},
		"announce on an open registry": {
			spoil: func(t *testing.T, s *server) { s.edit("127.0.0.1:", "0.0.0.0:") },
			says:  []string{"options.announce", "anonymous_pushes"},
		},
		"data folder in use": {
			spoil: func(t *testing.T, s *server) {
				s.start()
				other := filepath.Join(s.dir, "other.yml")
				s.edit(s.host, freeAddr(t))
				s.config = other
			},
			says: []string{"in use by another process", "options.data"},
		},
		"data folder that is a file": {
			spoil: func(t *testing.T, s *server) {
				write(t, filepath.Join(s.dir, "file"), "")
				s.edit("/tidings\n", "/file/tidings\n")
			},
			says: []string{"data folder", "options.data"},
		},
		"key missing": {
			spoil: func(t *testing.T, s *server) {
				if err := os.Remove(filepath.Join(s.dir, "tidings", "hold.key")); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"hold.key", "missing", "backup"},
		},
		"no account made": {
			spoil: func(t *testing.T, s *server) {
				if err := os.RemoveAll(filepath.Join(s.dir, "tidings")); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"tidings hold init"},
		},
		"another hostname": {
			spoil: func(t *testing.T, s *server) {
				s.edit("hostname: \"localhost:", "hostname: \"localhost:1\", login: false} #")
			},
			says: []string{"did:web:localhost", "hold init --new"},
		},
		"inline secret": {
			spoil: func(t *testing.T, s *server) {
				s.edit("hold:", "redis: {addrs: [\"127.0.0.1:1\"], password: hunter2}\n        hold:")
			},
			says: []string{"password_file"},
		},
		"damaged journal": {
			spoil: func(t *testing.T, s *server) {
				s.start()
				for i := range 3 {
					s.push(t, "oss/app", fmt.Sprint("v", i), newImage(1))
				}
				s.drained()
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
			says: []string{"journal", "damaged"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			test.spoil(t, s)
			cmd := s.command("serve", s.config)
			out := &logged{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ended without an error")
				}
			case <-time.After(20 * time.Second):
				cmd.Process.Kill()
				<-ended
				t.Error("it started")
			}
			for _, want := range test.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			if strings.Contains(out.String(), "hunter2") {
				t.Errorf("it prints a secret:\n%s", out)
			}
		})
	}
}

// edit changes the configuration. A server that runs keeps its own.
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

// With its Redis down the registry serves, and says that it is degraded.
func TestRedisDownAtStart(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", freeAddr(t))})
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	s.drained()
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
		t.Errorf("health says %+v", answer)
	}
	if got := s.numbers("oss/app").Pushes; got != 1 {
		t.Errorf("%d pushes counted on this disk, want 1", got)
	}
	s.stop()
}
