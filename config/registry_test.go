package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
)

func parseFile(t *testing.T, file string) *configuration.Configuration {
	t.Helper()
	c, err := configuration.Parse(strings.NewReader("version: 0.1\nstorage: inmemory\n" + file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFromRegistry(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file string
		found      bool
		err        string
	}{
		{"no middleware", "", false, ""},
		{"another middleware", "middleware: {repository: [{name: other, options: {data: 1}}]}", false, ""},
		{"one", "middleware: {repository: [{name: other}, {name: tidings, options: {data: /d}}]}", true, ""},
		{"without options", "middleware: {repository: [{name: tidings}]}", true, "options.data: required; use a folder on a local disk, such as /var/lib/tidings"},
		{"twice", "middleware: {repository: [{name: tidings, options: {data: /d}}, {name: tidings, options: {data: /e}}]}", true,
			"middleware.repository: has 2 entries named tidings (middleware.repository[0], middleware.repository[1]), so every push would be recorded several times; remove all but one"},
		{"in another section", "middleware: {registry: [{name: tidings}]}", true, "middleware.registry[0]: tidings is a repository middleware; move it to middleware.repository"},
		{"misspelled", "middleware: {repository: [{name: other}, {name: tiding, options: {data: /d}}]}", true, "middleware.repository[1].name: \"tiding\" is unknown; did you mean tidings?"},
		{"in capitals", "middleware: {repository: [{name: Tidings, options: {data: /d}}]}", true, "middleware.repository[0].name: \"Tidings\" is unknown; did you mean tidings?"},
		{"without a name", "middleware: {repository: [{options: {data: /d}}]}", true, "middleware.repository[0].name: required; use tidings"},
		{"a second one misspelled", "middleware: {repository: [{name: tidings, options: {data: /d}}, {name: tidngs}]}", true, "middleware.repository[1].name: \"tidngs\" is unknown; did you mean tidings?"},
		{"similar, in another section", "middleware: {storage: [{name: tiding}]}", false, ""},
		{"in two sections", "middleware: {storage: [{name: tidings}], repository: [{name: tidings, options: {data: /d}}]}", true,
			"middleware.storage[0]: tidings is a repository middleware; move it to middleware.repository"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, found, err := FromRegistry(parseFile(t, tc.file))
			var got string
			if err != nil {
				got = err.Error()
			}
			if found != tc.found || got != tc.err {
				t.Errorf("got found %v and %q, want %v and %q", found, got, tc.found, tc.err)
			}
			if (o != nil) != (tc.found && tc.err == "") {
				t.Errorf("got options %+v, want options only without an error", o)
			}
		})
	}
}

func TestCheckKeys(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, file, want string }{
		{"all keys", "middleware: {repository: [{name: tidings, disabled: false, options: {data: /d}}]}", ""},
		{"misspelled", "middleware: {repository: [{name: tidings, option: {data: /d}}]}", "middleware.repository[0].option: unknown key; did you mean options?"},
		{"misspelled name", "middleware: {repository: [{name: other, x: 1}, {nam: tidings}]}", "middleware.repository[1].nam: unknown key; did you mean name?"},
		{"option outside of options", "middleware: {repository: [{name: tidings, data: /d}]}", "middleware.repository[0].data: unknown key; did you mean options.data?"},
		{"two", "middleware: {repository: [{name: tidings, colour: red, disable: true}]}",
			"middleware.repository[0].colour: unknown key; known keys: disabled, name, options\nmiddleware.repository[0].disable: unknown key; did you mean disabled?"},
		{"option twice", "middleware: {repository: [{name: tidings, options: {data: /d, data: /e}, option: {}}]}", "middleware.repository[0].option: unknown key; did you mean options?"},
		{"no middleware", "version: 0.1", ""},
		{"another section", "middleware: {storage: [{name: tidings, x: 1}]}", ""},
		{"not YAML", "middleware: [", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := CheckKeys([]byte(tc.file)); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"by the entry":  "middleware: {repository: [{name: tidings, disabled: true, options: {data: /d, redis: inherit}}]}",
		"by the option": "middleware: {repository: [{name: tidings, options: {enabled: false, redis: inherit}}]}",
	} {
		o, found, err := FromRegistry(parseFile(t, file))
		if err != nil || !found || o.Enabled {
			t.Errorf("%s: got %+v, %v, %v; want found and not enabled", name, o, found, err)
			continue
		}
		if w := o.Warnings(); len(w) > 0 {
			t.Errorf("%s: got warnings %q, want none", name, w)
		}
	}
	_, _, err := FromRegistry(parseFile(t, "middleware: {repository: [{name: tidings, options: {enabled: false, daat: /d}}]}"))
	if err == nil || err.Error() != "options.daat: unknown option; did you mean data?" {
		t.Errorf("misspelled option of a disabled entry: got %v", err)
	}
}

func TestAnonymousAnnounce(t *testing.T) {
	t.Parallel()
	const who = " could make this account post, since the registry has no auth; " +
		"add auth, listen on 127.0.0.1, or allow it with announce.anonymous_pushes: true"
	const proxy = " admits could make this account post, since the registry has no auth and registry.example.com is reached from outside; " +
		"add auth or, if the proxy authenticates users or anonymous pushes are acceptable, set announce.anonymous_pushes: true"
	const public = "{}\nhold: {hostname: registry.example.com}"
	for _, tc := range []struct{ name, more, announce, want string }{
		{"loopback", "http: {addr: \"127.0.0.1:5000\"}", "{}", ""},
		{"loopback by name", "http: {addr: \"localhost:5000\"}", "{}", ""},
		{"IPv6 loopback", "http: {addr: \"[::1]:5000\"}", "{}", ""},
		{"Unix socket", "http: {net: unix, addr: /run/registry}", "{}", ""},
		{"all interfaces", "http: {addr: \":5000\"}", "{}", "anyone who reaches :5000" + who},
		{"all interfaces, as 0.0.0.0", "http: {addr: \"0.0.0.0:5000\"}", "{}", "anyone who reaches 0.0.0.0:5000" + who},
		{"no address", "http: {secret: x}", "{}", "anyone who reaches it" + who},
		{"private network", "http: {addr: \"10.0.0.1:5000\"}", "{}", "anyone who reaches 10.0.0.1:5000" + who},
		{"accepted", "http: {addr: \":5000\"}", "{anonymous_pushes: true}", ""},
		{"auth", "http: {addr: \":5000\"}\nauth: {htpasswd: {realm: r, path: /p}}", "{}", ""},
		{"auth that accepts everybody", "http: {addr: \":5000\"}\nauth: {silly: {realm: r, service: s}}", "{}", "anyone who reaches :5000" + who},
		{"client certificates", "http: {addr: \":5000\", tls: {certificate: c, key: k, clientcas: [ca]}}", "{}", ""},
		{"optional client certificates", "http: {addr: \":5000\", tls: {certificate: c, key: k, clientcas: [ca], clientauth: verify-client-cert-if-given}}", "{}", "anyone who reaches :5000" + who},
		{"pull-through cache", "http: {addr: \":5000\"}\nproxy: {remoteurl: \"https://example.com\"}", "{}", ""},
		{"behind a proxy", "http: {addr: \"127.0.0.1:5000\"}", public, "anyone whom the proxy in front of 127.0.0.1:5000" + proxy},
		{"Unix socket behind a proxy", "http: {net: unix, addr: /run/registry}", public, "anyone whom the proxy in front of /run/registry" + proxy},
		{"accepted behind a proxy", "http: {addr: \"127.0.0.1:5000\"}", "{anonymous_pushes: true}\nhold: {hostname: registry.example.com}", ""},
		{"auth behind a proxy", "http: {addr: \"127.0.0.1:5000\"}\nauth: {htpasswd: {realm: r, path: /p}}", public, ""},
		{"account on another port", "http: {addr: \"127.0.0.1:5000\"}", public + "\nhttp: {addr: \":5080\"}", ""},
		{"client certificates behind a proxy", "http: {addr: \"127.0.0.1:5000\", tls: {certificate: c, key: k, clientcas: [ca]}}", public, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(tc.announce, "hold:") {
				tc.announce += "\nhold: {hostname: localhost}"
			}
			c := registry(t, "data: /d\nannounce: "+tc.announce, tc.more)
			_, _, err := FromRegistry(c)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != "options.announce: "+tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	const header = "\nhttp: {client_header: X-Forwarded-For}"
	const hold = "data: /d\npublic: [\"**\"]\nhold: {hostname: registry.example.com}" + header
	for _, tc := range []struct {
		name, options, more string
		want                []string // prefixes
	}{
		{"none", hold, "", nil},
		{"counting only", "data: /d", "", nil},
		{"no public repository", "data: /d\nhold: {hostname: registry.example.com}" + header, "", []string{"public is empty: pushes and pulls are counted and nothing is published"}},
		{"one star", "data: /d\npublic: [\"*\"]", "", []string{`public has "*", which matches only repositories without a slash`}},
		{"localhost", "data: /d\npublic: [a]\nhold: {hostname: \"localhost:5000\"}", "", []string{"hold.hostname is localhost:5000: this identity is for testing"}},
		{"private top-level domain", "data: /d\npublic: [a]\nhold: {hostname: registry.local}" + header, "", []string{"hold.hostname has a top-level domain that the public network does not allow"}},
		{"moved", "data: /d\npublic: [a]\n" + moved("registry.example.com", "https://pds.example.com") + header, "", []string{"hold.moved_to: the account is at https://pds.example.com: nothing is published from here"}},
		{"moved, no public repository", "data: /d\n" + moved("registry.example.com", "https://pds.example.com") + header, "", []string{"public is empty: pushes and pulls are counted and nothing is published"}},
		{"no drain timeout", hold, "http: {addr: \":5000\"}", []string{"http.draintimeout is not set"}},
		{"pull-through cache", hold, "proxy: {remoteurl: \"https://example.com\"}", []string{"the registry is a pull-through cache"}},
		{"certificate of another host", hold, "http: {addr: \":443\", draintimeout: 1s, tls: {letsencrypt: {cachefile: c, hosts: [other.example.com]}}}",
			[]string{"http.tls.letsencrypt.hosts does not include registry.example.com"}},
		{"certificate of the hold", hold, "http: {addr: \":443\", draintimeout: 1s, tls: {letsencrypt: {cachefile: c, hosts: [registry.example.com]}}}", nil},
		{"proxy without client_header", "data: /d\npublic: [a]\nhold: {hostname: registry.example.com}", "", []string{"registry.example.com is reached over https and served without TLS here"}},
		{"proxy without client_header, separate listener", "data: /d\npublic: [a]\nhttp: {addr: \":5080\"}\nhold: {hostname: registry.example.com}",
			"http: {addr: \":443\", draintimeout: 1s, tls: {certificate: c, key: k}}", []string{"registry.example.com is reached over https"}},
		{"TLS without a proxy", "data: /d\npublic: [a]\nhold: {hostname: registry.example.com}", "http: {addr: \":443\", draintimeout: 1s, tls: {certificate: c, key: k}}", nil},
		{"debug address reachable", hold, "redis: {addrs: [\"a:1\"]}\nhttp: {addr: \":5000\", draintimeout: 1s, debug: {addr: \":5001\"}}",
			[]string{"http.debug.addr :5001 is reachable from outside"}},
		{"debug address on loopback", hold, "redis: {addrs: [\"a:1\"]}\nhttp: {addr: \":5000\", draintimeout: 1s, debug: {addr: \"localhost:5001\"}}", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := mustRead(t, tc.options, tc.more).Warnings()
			if len(got) != len(tc.want) {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tc.want[i]) {
					t.Errorf("got %q, want %q…", got[i], tc.want[i])
				}
			}
		})
	}
}

// The registry's environment variables set options.
func TestEnvironment(t *testing.T) {
	const at = "REGISTRY_MIDDLEWARE_REPOSITORY_0_OPTIONS_"
	for name, value := range map[string]string{
		"DATA": "/e", "ENABLED": "true", "PUBLIC": `["oss/**", team]`,
		"HOLD_HOSTNAME": "registry.example.com", "HOLD_KEY_FILE": "/k", "HOLD_RESERVE": "2GiB", "HOLD_LOGIN": "true",
		"ANNOUNCE": "{anonymous_pushes: true}", "REDIS": "inherit", "JOURNAL_LIMIT": "2GB",
		"COUNT_IGNORE_ACTORS": "mirror",
	} {
		t.Setenv(at+name, value)
	}
	t.Setenv("REGISTRY_REDIS_ADDRS", `["a:1"]`)
	o := mustRead(t, "data: /d", "")
	switch {
	case o.Data != "/e" || strings.Join(o.Public, " ") != "oss/** team" || o.Announce == nil || !o.Redis.Inherit:
		t.Errorf("got %+v", o)
	case o.Hold == nil || o.Hold.Hostname != "registry.example.com" || o.KeyFile() != "/k" || o.Hold.Reserve != 2<<30 || !o.Hold.Login:
		t.Errorf("got hold %+v", o.Hold)
	case o.Journal.Limit != 2e9 || o.Journal.Segment != 16<<20 || len(o.Count.IgnoreActors) != 1:
		t.Errorf("got journal %+v and count %+v", o.Journal, o.Count)
	}
}

func TestConfigFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.yml")
	if err != nil || len(files) != 5 {
		t.Fatalf("found %v, %v; want the five configuration files", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := configuration.Parse(strings.NewReader(string(raw)))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		o, found, err := FromRegistry(c)
		if err != nil || !found {
			t.Errorf("%s: found %v, %v", file, found, err)
			continue
		}
		var want []string
		if file == "embedded.yml" {
			want = []string{"hold.hostname is localhost:5000"}
		}
		if got := o.Warnings(); len(got) != len(want) || len(want) > 0 && !strings.HasPrefix(got[0], want[0]) {
			t.Errorf("%s: got warnings %q, want %q", file, got, want)
		}
		if len(o.Public) == 0 {
			t.Errorf("%s: no repository is public", file)
		}
		steps, _, _ := strings.Cut(string(raw), "\nversion:")
		if token := o.API.TokenFile; !strings.Contains(steps, token) {
			t.Errorf("%s: the steps at the beginning do not create %s, without which the file is invalid", file, token)
		}
	}
}

// A secret that every user of the machine can read causes a warning.
func TestOpenSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for option, options := range map[string]string{
		"api.token_file":               "public: [a]\napi: {token_file: %s}",
		"redis.password_file":          "public: [a]\nredis: {addrs: [\"a:1\"], password_file: %s}",
		"hold.key_file":                "public: [a]\nhold: {hostname: localhost, key_file: %s}",
		"account.password_file":        "public: [a]\naccount: {service: \"https://example.com\", identifier: a.example.com, password_file: %s}",
		"remote.key_file":              "public: [a]\nremote: {hold: \"did:web:hold.example.com\", hostname: registry.example.com, key_file: %s}",
		"remote.account.password_file": "public: [a]\nremote: {hold: \"did:web:hold.example.com\", account: {service: \"https://example.com\", identifier: a.example.com, password_file: %s}}",
	} {
		o := mustRead(t, "data: /d\n"+fmt.Sprintf(options, file), "")
		warns := func() bool {
			return slices.ContainsFunc(o.Warnings(), func(w string) bool {
				return strings.HasPrefix(w, "options."+option+": every user of this machine can read "+file)
			})
		}
		for mode, want := range map[fs.FileMode]bool{0o600: false, 0o440: false, 0o444: true} {
			if err := os.Chmod(file, mode); err != nil {
				t.Fatal(err)
			}
			if got := warns(); got != want {
				t.Errorf("%s with mode %04o: warned %v", option, mode, got)
			}
		}
	}
}
