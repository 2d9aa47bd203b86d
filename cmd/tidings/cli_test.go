package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

// tidings runs the program with dir as its working directory.
func tidings(t *testing.T, dir string, env []string, args ...string) (out, errs string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), runMain+"=1", "OTEL_TRACES_EXPORTER=none"), env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the exit code is checked
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// file writes a configuration with the options to dir.
func file(t *testing.T, dir, name, options string) {
	t.Helper()
	content := "version: 0.1\nstorage: {filesystem: {rootdirectory: ./registry}}\nhttp: {addr: \"127.0.0.1:0\", draintimeout: 1s}\n"
	if options != "" {
		content += "middleware:\n  repository:\n    - name: tidings\n      options:\n        " + strings.ReplaceAll(options, "\n", "\n        ") + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		out, _, code := tidings(t, t.TempDir(), nil, args...)
		if !regexp.MustCompile(`^tidings \S+.*, distribution v3\.\S+, go1\.\S+ \w+/\w+\n$`).MatchString(out) || code != 0 {
			t.Errorf("%v prints %q with code %d", args, out, code)
		}
	}
	got := version(&debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
	})
	if !strings.HasPrefix(got, "tidings v1.2.3 (0123456789ab, modified), distribution (unknown), go") {
		t.Errorf("version is %q", got)
	}
}

// The help of each command has an example of it, and says whether the registry has to be
// running or stopped.
func TestHelp(t *testing.T) {
	t.Parallel()
	var check func(c *cobra.Command, path string)
	check = func(c *cobra.Command, path string) {
		path += " " + c.Name()
		for _, sub := range c.Commands() {
			check(sub, path)
		}
		if !c.Runnable() {
			return
		}
		if !strings.HasPrefix(c.Example, "  "+path+" ") && c.Example != "  "+path {
			t.Errorf("%s: the example is %q", path, c.Example)
		}
		help := c.Short + c.Long
		if c.HasParent() {
			help += c.Parent().Long
		}
		if c.Name() != "version" && !strings.Contains(help, "running") && !strings.Contains(help, "stopped") {
			t.Errorf("%s: the help does not say whether the registry has to be running or stopped:\n%s", path, help)
		}
	}
	for _, c := range commands() {
		check(c, "tidings")
	}
}

// A signal ends a command that waits for an answer, and nothing is done.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	cmd := s.command("purge", s.config, "oss/app")
	in, err := cmd.StdinPipe() // nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	eventually(t, "the question", 20*time.Second, func() bool { return strings.Contains(log.String(), "[y/N]") })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the exit code is checked
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(log.String(), "[y/N] \nError: not confirmed; nothing was changed\n") {
		t.Errorf("exit code %d\n%s", code, log)
	}
}

func TestUnknownCommand(t *testing.T) {
	t.Parallel()
	if _, errs, code := tidings(t, t.TempDir(), nil, "sevre"); code != 1 || !strings.Contains(errs, `unknown command "sevre" for "tidings"`) {
		t.Errorf("code %d, %q", code, errs)
	}
}

// Errors about arguments, flags and subcommands say what is right.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"sinks lst c.yml", 1, "unknown command \"lst\" for \"tidings sinks\"; did you mean list?"},
		{"sinks c.yml", 1, "unknown command \"c.yml\" for \"tidings sinks\"; `tidings sinks --help` lists the commands"},
		{"hold key rotat c.yml", 1, "unknown command \"rotat\" for \"tidings hold key\"; did you mean rotate?"},
		{"purge c.yml", 1, "accepts 2 arg(s), received 1; usage: tidings purge <config> <repository> [flags]"},
		{"dead retry c.yml", 1, "received 1; usage: tidings dead retry <config> <letter>... [flags]"},
		{"status c.yml --jsn", 2, "unknown flag: --jsn; `tidings status --help` lists the flags"},
		{"status c.yml d.yml", 2, "accepts at most 1 arg(s), received 2; usage: tidings status <config> [flags]"},
		{"status none.yml", 2, "open none.yml: no such file"},
		{"status", 2, "no configuration file: pass one"},
		{"dead list c.yml --limit x", 1, "invalid argument \"x\" for \"--limit\" flag: must be a whole number; `tidings dead list --help`"},
		{"dead list c.yml --limit 99999999999999999999", 1, "for \"--limit\" flag: is out of range; "},
		{"sinks skip c.yml records --to=-1", 1, "for \"--to\" flag: must be a whole number, and not negative; "},
		{"status c.yml --json=x", 2, "for \"--json\" flag: must be true or false; "},
		{"backfill c.yml --status --stop", 1, "--stop and --status exclude each other: pass one of them"},
		{"journal drain c.yml --timeout 5", 1, "invalid argument \"5\" for \"--timeout\" flag"},
	} {
		out, errs, code := tidings(t, t.TempDir(), nil, strings.Fields(tc.args)...)
		if code != tc.code || out != "" || !strings.HasPrefix(errs, "Error: ") || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("tidings %s: code %d, %s%s\nwant %q", tc.args, code, out, errs, tc.want)
		}
	}
	if out, errs, code := tidings(t, t.TempDir(), nil, "sinks"); code != 0 || errs != "" || !strings.Contains(out, "sinks pause") {
		t.Errorf("tidings sinks: code %d, %s%s", code, out, errs)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	const hold = "data: ./data\npublic: [\"oss/**\"]\nhold: {hostname: registry.example.com}\n"
	for _, tc := range []struct {
		name, options string
		env           []string
		code          int
		says          []string
	}{
		{"no entry", "", nil, 0, []string{"c.yml has no entry `name: tidings` under middleware.repository: the registry runs without Tidings."}},
		{"switched off", "enabled: false", nil, 0, []string{"c.yml disables Tidings"}},
		{"counting only", "data: ./data", nil, 0, []string{"c.yml is valid.", "no repository; the API", "none; pushes and pulls are only counted", "announced  nothing", "on this machine only",
			"reserve    counting and publishing pause while less than 1GiB of disk space is free"}},
		{"a hold", hold, nil, 0, []string{`repositories that match "oss/**"`, "did:web:registry.example.com of this process", "key        data/hold.key",
			"login      disabled", "less than 1GiB", "counts     of public repositories are written to the account every 6h", "The account does not exist yet. Create it with: tidings hold init c.yml"}},
		{"everything", hold + "owner: did:web:example.com\nannounce: {tags: [a, b], collect: 0, appview: off, max_age: 90m, link: \"https://example.com/{{.Tag}}\", anonymous_pushes: true}\n" +
			"redis: {addrs: [\"redis:6379\"]}\ncount: {ignore_actors: [mirror]}\nhttp: {addr: \":5080\"}", nil, 0,
			[]string{"images belong to did:web:example.com", `tags that match "a" or "b", at once; pushes older than 1h30m only in a summary`, "link       https://example.com/{{.Tag}}", "indexed    no AppView is asked",
				"anonymous pushes are announced", "summed in Redis at redis:6379", `requests of "mirror"`, "the account listen on :5080"}},
		{"a quota", hold + "quota: {tiers: {free: {limit: 5GiB}, paid: {limit: 500GiB}}, default: free, owners: [{owner: \"did:web:example.com\", tier: paid}]}", nil, 0,
			[]string{"quota      free 5GiB (default), paid 500GiB; owners with a tier of their own: 1"}},
		{"a dry run", hold + "announce: {dry_run: true, anonymous_pushes: true}", nil, 0, []string{"posts are only logged (announce.dry_run)", "warning: announce.dry_run: posts are only logged; remove the option to write them"}},
		{"no stats records", hold + "stats: {records: off}", nil, 0, []string{"counts     are not written to the account"}},
		{"a reserve", "data: ./data\nreserve: 5GiB\npublic: [\"oss/**\"]\nhold: {hostname: registry.example.com, reserve: 2GiB}", nil, 0,
			[]string{"pause while less than 5GiB of disk space is free", "refuses writes while less than 2GiB is free (hold.reserve)"}},
		{"version tags", hold + "announce: {anonymous_pushes: true}", nil, 0, []string{"version tags (v1.2.3, 1.2.3), the tags of one image within 20s in one post; pushes older than 1h only in a summary", "a post of a repository every 10m, 50 posts a day; posts are never deleted",
			"indexed    no AppView is asked"}},
		{"an AppView", "data: ./data\npublic: [\"oss/**\"]\nhold: {hostname: registry.example.com, relays: [\"https://bsky.network\"]}\nannounce: {anonymous_pushes: true}", nil, 0,
			[]string{"indexed    https://public.api.bsky.app is asked whether it has the posts"}},
		{"the environment", hold, []string{"REGISTRY_MIDDLEWARE_REPOSITORY_0_OPTIONS_PUBLIC=[team/app]"}, 0, []string{`repositories that match "team/app"`}},
		{"a warning", "data: ./data\nhold: {hostname: registry.example.com}", nil, 0, []string{"warning: public is empty: pushes and pulls are counted and nothing is published"}},
		{"a key twice", "data: ./data\ndata: ./other", nil, 0, []string{"./other;", "warning: duplicate key, of which the registry uses the last: line 9"}},
		{"mistakes", "dtaa: ./data\nhold: {hostname: \"1.2.3.4\"}", nil, 1,
			[]string{"c.yml is invalid:\n  options.dtaa: unknown option; did you mean data?\n  options.hold.hostname: \"1.2.3.4\" is an IP address"}},
		{"missing files", "data: ./data\nredis: {addrs: [\"a:1\"], password_file: ./none}\napi: {token_file: ./gone}", nil, 1,
			[]string{"options.redis.password_file: open ./none", "options.api.token_file: open ./gone"}},
		{"missing password", "data: ./data\naccount: {service: \"https://bsky.social\", identifier: images.example.com, password_file: ./none}", nil, 1,
			[]string{"options.account.password_file: open ./none"}},
		{"not a configuration", "data: [", nil, 1, []string{"c.yml: yaml: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file(t, dir, "c.yml", tc.options)
			out, errs, code := tidings(t, dir, tc.env, "config", "check", "c.yml")
			if code != tc.code {
				t.Errorf("code %d, want %d", code, tc.code)
			}
			for _, want := range tc.says {
				if !strings.Contains(out+errs, want) {
					t.Errorf("missing %q:\n%s%s", want, out, errs)
				}
			}
			if strings.Contains(errs, "Usage:") {
				t.Errorf("prints the usage for an invalid option:\n%s", errs)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("unexpected files: %v", entries)
			}
		})
	}
}

// Files that a start or another command reads are checked: the configuration has only their
// names.
func TestConfigCheckFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), " \n")
	write(t, filepath.Join(dir, "garbage"), "garbage\n")
	for _, tc := range []struct {
		name, options string
		want          string // after "c.yml is invalid"; "": valid
	}{
		{"empty token and password of Redis", "redis: {addrs: [\"a:1\"], password_file: ./empty}\napi: {token_file: ./empty}",
			"options.redis.password_file: ./empty is empty\n  options.api.token_file: ./empty is empty"},
		{"empty password", "account: {service: \"https://bsky.social\", identifier: images.example.com, password_file: ./empty}", "options.account.password_file: ./empty is empty"},
		{"key that is none", "public: [a]\nhold: {hostname: \"localhost:5000\", key_file: ./garbage}", "options.hold.key_file: load signing key: ./garbage does not contain a private key in multibase"},
		{"key of the sender that is none", "remote: {hold: \"did:web:hold.example.com\", hostname: registry.example.com, key_file: ./garbage}",
			"options.remote.key_file: load signing key: ./garbage does not contain a private key in multibase"},
		{"no key of the sender yet", "remote: {hold: \"did:web:hold.example.com\", hostname: registry.example.com, key_file: ./none}", ""},
		{"missing avatar", "public: [a]\nhold: {hostname: \"localhost:5000\", avatar: ./none.png}", "options.hold.avatar: open avatar: open ./none.png: no such file or directory"},
		{"avatar that is no picture", "public: [a]\nhold: {hostname: \"localhost:5000\", avatar: ./empty}", "options.hold.avatar: avatar ./empty is neither PNG nor JPEG"},
		{"empty password of the sender", "remote: {hold: \"did:web:hold.example.com\", account: {service: \"https://bsky.social\", identifier: images.example.com, password_file: ./empty}}",
			"options.remote.account.password_file: ./empty is empty"},
	} {
		file(t, dir, "c.yml", "data: ./data\n"+tc.options)
		want, wantCode := "Error: c.yml is invalid:\n  "+tc.want+"\n", 1
		if tc.want == "" {
			want, wantCode = "", 0
		}
		if out, errs, code := tidings(t, dir, nil, "config", "check", "c.yml"); code != wantCode || errs != want {
			t.Errorf("%s: code %d, want %d:\n%s%s\nwant %s", tc.name, code, wantCode, out, errs, want)
		}
	}
}

func TestConfigurationPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "")
	if out, errs, code := tidings(t, dir, []string{"REGISTRY_CONFIGURATION_PATH=c.yml"}, "config", "check"); code != 0 || !strings.Contains(out, "c.yml has no entry") {
		t.Errorf("from the environment: code %d, %s%s", code, out, errs)
	}
	if _, errs, code := tidings(t, dir, nil, "config", "check"); code != 1 || !strings.Contains(errs, "no configuration file") {
		t.Errorf("none: code %d, %s", code, errs)
	}
	if _, errs, code := tidings(t, dir, nil, "config", "check", "d.yml"); code != 1 || !strings.Contains(errs, "open d.yml") {
		t.Errorf("missing file: code %d, %s", code, errs)
	}
}

// An unknown key next to the options is an error of every command that reads them.
func TestUnknownEntryKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "c.yml"), "version: 0.1\nstorage: inmemory\nmiddleware: {repository: [{name: tidings, option: {data: ./data}}]}\n")
	const want = "Error: c.yml is invalid:\n  middleware.repository[0].option: unknown key; did you mean options?\n"
	for _, args := range [][]string{{"config", "check", "c.yml"}, {"serve", "c.yml"}, {"sinks", "list", "c.yml"}} {
		if out, errs, code := tidings(t, dir, nil, args...); code != 1 || errs != want {
			t.Errorf("%v: code %d, %s%s, want %s", args, code, out, errs, want)
		}
	}
}

// Invalid options stop serve before the registry creates anything; the errors are
// listed one a line. The registry reports errors in the rest of the file.
func TestServeRefusesInvalidOptions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "dtaa: ./data\nhold: {hostname: \"1.2.3.4\"}")
	_, errs, code := tidings(t, dir, nil, "serve", "c.yml")
	want := "Error: c.yml is invalid:\n  options.dtaa: unknown option; did you mean data?\n  options.hold.hostname: \"1.2.3.4\" is an IP address"
	if code != 1 || !strings.HasPrefix(errs, want) {
		t.Errorf("code %d, got %q, want %q", code, errs, want)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("unexpected files: %v", entries)
	}
	for _, command := range []string{"serve", "garbage-collect"} {
		if out, errs, code := tidings(t, dir, nil, command, "none.yml"); code != 1 || out != "" || errs != "Error: open none.yml: no such file or directory\n" {
			t.Errorf("%s without the file: code %d, %q, %q", command, code, out, errs)
		}
	}
}

func TestHoldInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data\nhold: {hostname: \"localhost:5000\"}")
	file(t, dir, "other.yml", "data: ./data\nhold: {hostname: \"localhost:5001\"}")
	file(t, dir, "none.yml", "data: ./data")
	key := filepath.Join(dir, "data", "hold.key")

	out, errs, code := tidings(t, dir, nil, "hold", "init", "c.yml")
	if code != 0 || !strings.HasPrefix(out, "The account is did:web:localhost%3A5000, in data/hold.\nIts key is data/hold.key: keep a copy; without it nobody can sign for the account.\n") {
		t.Fatalf("first: code %d, %s%s", code, out, errs)
	}
	created, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v; want 0600", info.Mode(), err)
	}
	if out, errs, code := tidings(t, dir, nil, "config", "check", "c.yml"); code != 0 || strings.Contains(out, "does not exist yet") {
		t.Errorf("config check after it: code %d, %s%s", code, out, errs)
	}

	out, errs, code = tidings(t, dir, nil, "hold", "init", "c.yml")
	if code != 0 || !strings.HasPrefix(out, "The account is did:web:localhost%3A5000, in data/hold.") {
		t.Errorf("again: code %d, %s%s", code, out, errs)
	}
	if again, err := os.ReadFile(key); err != nil || !bytes.Equal(again, created) {
		t.Errorf("the key has changed, %v", err)
	}

	if _, errs, code := tidings(t, dir, nil, "hold", "init", "other.yml"); code != 1 || !strings.Contains(errs, "tidings hold init --new") {
		t.Errorf("another hostname: code %d, %s", code, errs)
	}
	out, errs, code = tidings(t, dir, nil, "hold", "init", "--new", "other.yml")
	if code != 0 || !strings.Contains(out, "did:web:localhost%3A5001") {
		t.Errorf("another hostname with --new: code %d, %s%s", code, out, errs)
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "data", "hold.old-*")); len(old) != 1 {
		t.Errorf("old repos: %v, want one folder", old)
	}

	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := tidings(t, dir, nil, "hold", "init", "other.yml"); code != 1 || !strings.Contains(errs, "restore the key from a backup") {
		t.Errorf("lost key: code %d, %s", code, errs)
	}
	if cli.Exists(key) {
		t.Error("a lost key was created again")
	}
	if _, errs, code := tidings(t, dir, nil, "hold", "init", "none.yml"); code != 1 || !strings.Contains(errs, "none.yml has no hold section; add `hold: {hostname: …}`") {
		t.Errorf("no hold: code %d, %s", code, errs)
	}
}

func TestHoldPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data\nhold: {hostname: localhost}")
	file(t, dir, "login.yml", "data: ./data\nhold: {hostname: localhost, login: true}")
	out, errs, code := tidings(t, dir, nil, "hold", "password", "c.yml")
	if code != 0 || !regexp.MustCompile(`^[a-z0-9-]{20,}\n$`).MatchString(out) || !strings.Contains(errs, "Login is disabled") {
		t.Fatalf("code %d, %q, %q", code, out, errs)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "data", "hold.password"))
	if err != nil || strings.Contains(string(stored), strings.TrimSpace(out)) {
		t.Errorf("stored as %q, %v; want a hash", stored, err)
	}
	again, errs, code := tidings(t, dir, nil, "hold", "password", "login.yml")
	if code != 0 || again == out || strings.Contains(errs, "Login is disabled") {
		t.Errorf("again: code %d, %q after %q, %q", code, again, out, errs)
	}
}

// Traces are disabled unless the environment selects an exporter.
func TestDisableTraces(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	disableTraces()
	if got := os.Getenv("OTEL_TRACES_EXPORTER"); got != "console" {
		t.Errorf("got %q, want the exporter that was set", got)
	}
	os.Unsetenv("OTEL_TRACES_EXPORTER")
	disableTraces()
	if got := os.Getenv("OTEL_TRACES_EXPORTER"); got != "none" {
		t.Errorf("unset: got %q, want none", got)
	}
}

type tracerProvider struct {
	noop.TracerProvider
	ended bool
}

func (p *tracerProvider) Shutdown(context.Context) error { p.ended = true; return nil }

// The registry's tracer provider is shut down and replaced.
func TestStopTraces(t *testing.T) {
	provider := &tracerProvider{}
	otel.SetTracerProvider(provider)
	stopTraces()
	if !provider.ended {
		t.Error("the provider was not shut down")
	}
	if now := otel.GetTracerProvider(); now == trace.TracerProvider(provider) {
		t.Error("the provider is still in use")
	}
}

// A file that is not a configuration of this version, and a data folder that is a file, are named.
func TestWrongFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty.yml"), "")
	write(t, filepath.Join(dir, "new.yml"), "version: 7\nstorage: inmemory\n")
	write(t, filepath.Join(dir, "broken.yml"), "a: [b")
	file(t, dir, "data.yml", "data: ./empty.yml\nhold: {hostname: localhost}")
	file(t, dir, "plain.yml", "")
	expect(t, dir, 2, []string{"status", "empty.yml"}, "Error: empty.yml: it has no version, so it is no configuration of a registry; one begins with `version: 0.1`")
	expect(t, dir, 2, []string{"status", "plain.yml"}, "Error: plain.yml has no entry `name: tidings` under middleware.repository")
	expect(t, dir, 1, []string{"config", "check", "new.yml"}, "Error: new.yml: version \"7\" is not supported; the version of a configuration is 0.1")
	expect(t, dir, 1, []string{"config", "check", "broken.yml"}, "Error: broken.yml: yaml: line 1:")
	expect(t, dir, 1, []string{"config", "check", "data.yml"}, "data.yml is invalid:\n  options.data: ./empty.yml is not a folder")
	for _, args := range [][]string{{"hold", "init", "data.yml"}, {"hold", "status", "data.yml"}, {"reconcile", "data.yml"}} {
		expect(t, dir, 1, args, "options.data: ./empty.yml is not a folder")
	}
}

// Commands for a stopped registry say how a missing data folder is created, and do not create it.
func TestNoDataFolder(t *testing.T) {
	t.Parallel()
	for _, account := range []struct{ options, creator string }{
		{"hold: {hostname: localhost}", "`tidings hold init` creates it"},
		{"account: {service: \"https://example.com\", identifier: a.example.com, password_file: ./password}", "the first start of the registry creates it"},
	} {
		dir := t.TempDir()
		file(t, dir, "c.yml", "data: ./data\npublic: [\"**\"]\n"+account.options)
		for _, args := range [][]string{{"reconcile", "c.yml"}, {"quota", "c.yml"}, {"journal", "drain", "c.yml"}, {"backup", "c.yml", "copy"}} {
			expect(t, dir, 1, args, "Error: the data folder ./data does not exist; "+account.creator)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("unexpected files: %v", entries)
		}
	}
}
