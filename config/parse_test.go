package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
)

// registry reads a configuration file as the registry does, with options under
// the tidings entry and more at the end.
func registry(t *testing.T, options, more string) *configuration.Configuration {
	t.Helper()
	if !strings.Contains(more, "http:") {
		more += "\nhttp: {addr: \"127.0.0.1:5000\", draintimeout: 10s}\n"
	}
	file := "version: 0.1\nstorage: inmemory\nmiddleware:\n  repository:\n    - name: tidings\n      options:\n" +
		indent(options, "        ") + "\n" + more
	c, err := configuration.Parse(strings.NewReader(file))
	if err != nil {
		t.Fatalf("the registry does not read this: %v\n%s", err, file)
	}
	return c
}

func indent(text, by string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	return by + strings.Join(lines, "\n"+by)
}

func mustRead(t *testing.T, options, more string) *Options {
	t.Helper()
	o, found, err := FromRegistry(registry(t, options, more))
	if err != nil || !found {
		t.Fatalf("FromRegistry: found %v, %v", found, err)
	}
	return o
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got := mustRead(t, "data: /d\nhold: {hostname: localhost}\nannounce: {}", "")
	want := &Options{
		Enabled:  true,
		Data:     "/d",
		Hold:     &Hold{Hostname: "localhost", Reserve: 1 << 30},
		Reserve:  1 << 30,
		Announce: &Announce{Collect: 20 * time.Second, MaxAge: time.Hour, Langs: []string{"en"}},
		Count:    Count{HeadWindow: 10 * time.Second},
		Journal:  Journal{Segment: 16 << 20, Limit: 1 << 30, Wait: 10 * time.Second},
		HTTP:     HTTP{Proxies: []string{"127.0.0.0/8", "::1"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	places := []string{got.JournalDir(), got.StateDir(), got.HoldDir(), got.KeyFile(), got.PasswordFile(), got.LockFile(), got.CollectedDir()}
	if want := "[/d/journal /d/state /d/hold /d/hold.key /d/hold.password /d/lock /d/collected]"; fmt.Sprint(places) != want {
		t.Errorf("places are %v, want %v", places, want)
	}
}

func TestEveryOption(t *testing.T) {
	t.Parallel()
	got := mustRead(t, `
enabled: true
data: /d
public: [a, "b/**", "did:web:localhost%3A5001/**"]
hold:
  hostname: registry.example.com
  key_file: /k
  login: true
  reserve: 5GB
  relays: ["https://relay.example.com", "http://localhost:2470"]
  registries: ["did:web:other.example.com", "did:web:localhost%3A5001"]
  owners: ["did:plc:ewvi7nxzyoun6zhxrhs64oiz"]
  display_name: Näme
  description: More
  avatar: /a.png
  moved_to: {service: "https://pds.example.com", key: "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"}
owner: did:plc:ewvi7nxzyoun6zhxrhs64oiz
announce:
  tags: ["v*", edge]
  collect: 0
  max_age: 90m
  link: "https://example.com/{{.Repository}}?t={{.Tag}}&d={{.Digest}}"
  langs: [en, pt-BR, ja]
  appview: "https://appview.example.com"
  anonymous_pushes: true
  retags: true
redis:
  addrs: ["a:6379", "b:6379"]
  username: u
  password_file: /p
  db: 3
  master_name: m
  name: blue
  tls: {ca_file: /ca, cert_file: /cert, key_file: /key, server_name: s}
reserve: 3GB
count:
  ignore_user_agents: ["*[bot", "Trivy/*"]
  ignore_actors: [mirror]
  head_window: 1m
journal: {segment: 8388608, limit: 64MiB, wait: 1500ms}
http: {addr: ":5080", client_header: X-Real-Ip, proxies: [10.0.0.7, "2001:db8::/64"]}
api: {token_file: /t}
`, "")
	want := &Options{
		Enabled: true,
		Data:    "/d",
		Public:  []string{"a", "b/**", "did:web:localhost%3A5001/**"},
		Hold: &Hold{Hostname: "registry.example.com", KeyFile: "/k", Login: true, Reserve: 5e9, Relays: []string{"https://relay.example.com", "http://localhost:2470"},
			Registries: []string{"did:web:other.example.com", "did:web:localhost%3A5001"}, Owners: []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}, DisplayName: "Näme", Description: "More", Avatar: "/a.png",
			MovedTo: &MovedTo{Service: "https://pds.example.com", Key: "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"}},
		Owner: "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		Announce: &Announce{Tags: []string{"v*", "edge"}, MaxAge: 90 * time.Minute, Langs: []string{"en", "pt-BR", "ja"},
			Link: "https://example.com/{{.Repository}}?t={{.Tag}}&d={{.Digest}}", AppView: "https://appview.example.com", AnonymousPushes: true, Retags: true},
		Redis: &Redis{Addrs: []string{"a:6379", "b:6379"}, Username: "u", PasswordFile: "/p", DB: 3, MasterName: "m", Name: "blue",
			TLS: &RedisTLS{CAFile: "/ca", CertFile: "/cert", KeyFile: "/key", ServerName: "s"}},
		Reserve: 3e9,
		Count:   Count{IgnoreUserAgents: []string{"*[bot", "Trivy/*"}, IgnoreActors: []string{"mirror"}, HeadWindow: time.Minute},
		Journal: Journal{Segment: 8 << 20, Limit: 64 << 20, Wait: 1500 * time.Millisecond},
		HTTP:    HTTP{Addr: ":5080", ClientHeader: "X-Real-Ip", Proxies: []string{"10.0.0.7", "2001:db8::/64"}},
		API:     API{TokenFile: "/t"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.KeyFile() != "/k" {
		t.Errorf("the key is at %s, want /k", got.KeyFile())
	}

	// The test above is only worth something if it names every option.
	var empty func(path string, v reflect.Value)
	empty = func(path string, v reflect.Value) {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		for name, i := range fields(v.Type()) {
			f := v.Field(i)
			switch {
			case f.Kind() == reflect.Struct || f.Kind() == reflect.Pointer && !f.IsNil():
				empty(path+"."+name, f)
			case f.IsZero() && path+"."+name != "options.announce.collect" && path+"."+name != "options.redis.inherit":
				t.Errorf("%s is not set in this test", path+"."+name)
			}
		}
	}
	empty("options", reflect.ValueOf(got))
}

func moved(hostname, service string) string {
	return fmt.Sprintf("hold: {hostname: %q, moved_to: {service: %q}}", hostname, service)
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	const ok = "data: /d\n"
	const validHostname = "use a domain like registry.example.com, or localhost:5000 for testing"
	const hold = ok + "hold: {hostname: localhost}\n"
	long := strings.Repeat("x", 65)
	for _, tc := range []struct{ name, options, want string }{
		{"nothing", "{}", "options.data: required; use a folder on a local disk, such as /var/lib/tidings"},
		{"misspelled", hold + "anounce: {}", "options.anounce: unknown option; did you mean announce?"},
		{"swapped letters", hold + "anonunce: {}", "options.anonunce: unknown option; did you mean announce?"},
		{"camel case", hold + "announce: {maxAge: 2h}", "options.announce.maxAge: unknown option; did you mean max_age?"},
		{"with a hyphen", ok + "count: {head-window: 5s}", "options.count.head-window: unknown option; did you mean head_window?"},
		{"misspelled and required", ok + "hold: {hostnam: localhost}", "options.hold.hostnam: unknown option; did you mean hostname?"},
		{"far away", ok + "colour: red", "options.colour: unknown option; known options: announce, api, count, data, enabled, hold, http, journal, owner, public, redis, reserve"},
		{"in the wrong section", hold + "collect: 5s", "options.collect: unknown option here; did you mean options.announce.collect?"},
		{"one section too deep", ok + "hold: {hostname: localhost, public: [\"**\"]}", "options.hold.public: unknown option here; did you mean options.public?"},
		{"name is a number", ok + "http: {1: x}", "options.http.1: unknown option; option names are strings"},
		{"true is a name", ok + "http: {true: x}", "options.http.true: unknown option; option names are strings"},

		{"account", ok + "account: {service: https://example.com, password: hunter2}", "options.account: not supported by this version; use hold, the account embedded in the registry"},
		{"remote", ok + "remote: {}", "options.remote: not supported by this version; use hold, the account embedded in the registry"},
		{"two writers", ok + "account: {}\nremote: {}", "options.account: not supported by this version; use hold, the account embedded in the registry\n" +
			"options.remote: not supported by this version; use hold, the account embedded in the registry\n" +
			"options: account and remote are writers; only one writer is allowed"},
		{"account and hold", hold + "account: {}", "options.account: not supported by this version; use hold, the account embedded in the registry\n" +
			"options: account and hold are writers; only one writer is allowed"},

		{"password of Redis", ok + "redis: {addrs: [\"a:1\"], password: hunter2}", "options.redis.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"password by another name", ok + "redis: {addrs: [\"a:1\"], passwd: hunter2}", "options.redis.passwd: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"misspelled password", ok + "redis: {addrs: [\"a:1\"], pasword: hunter2}", "options.redis.pasword: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"token", ok + "api: {token: hunter2}", "options.api.token: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set token_file"},
		{"bearer token", ok + "api: {bearer_token: hunter2}", "options.api.bearer_token: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set token_file"},
		{"key of the hold", ok + "hold: {hostname: localhost, key: hunter2}", "options.hold.key: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set key_file"},
		{"signing key", ok + "hold: {hostname: localhost, signing_key: hunter2}", "options.hold.signing_key: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set key_file"},
		{"password of the hold", ok + "hold: {hostname: localhost, password: hunter2}", "options.hold.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; `tidings hold password` creates one and stores its hash"},
		{"secret anywhere", ok + "secret: hunter2", "options.secret: secrets are not allowed here, since the registry shows its configuration at /debug/vars; secrets are in files that *_file options name, and there is no such option for this"},

		{"section is a text", ok + "hold: localhost", "options.hold: is \"localhost\", but must be a section with options"},
		{"section is a list", ok + "journal: [a]", "options.journal: is a list, but must be a section with options"},
		{"section without a value", hold + "announce:", "options.announce: has no value; write `announce: {}` to use the defaults, or remove the line"},
		{"option without a value", ok + "public:", "options.public: has no value; set one or remove the line"},
		{"bool is a word", ok + "enabled: maybe", "options.enabled: is \"maybe\", but must be true or false"},
		{"bool is a number", ok + "hold: {hostname: localhost, login: 1}", "options.hold.login: is 1, but must be true or false"},
		{"text is a list", "data: [a, b]", "options.data: is a list, but must be a string; use quotes"},
		{"text is a fraction", "data: 1.5", "options.data: is 1.5, but must be a string; use quotes"},
		{"text is a bool", "data: yes", "options.data: is true, but must be a string; use quotes"},
		{"list is a section", ok + "public: {a: b}", "options.public: is a section, but must be a list of strings"},
		{"list of a list", ok + "public: [a, [b]]", "options.public[1]: is a list, but must be a string; use quotes"},
		{"list of nothing", ok + "public: [~]", "options.public[0]: is nothing, but must be a string; use quotes"},
		{"number is a word", ok + "redis: {addrs: [\"a:1\"], db: first}", "options.redis.db: is \"first\", but must be an integer"},
		{"number is a fraction", ok + "redis: {addrs: [\"a:1\"], db: 1.5}", "options.redis.db: is 1.5, but must be an integer"},

		{"duration without a unit", hold + "announce: {collect: 20}", "options.announce.collect: 20 has no unit; use a duration like \"20s\", \"10m\" or \"1h\""},
		{"duration in days", hold + "announce: {max_age: 1d}", "options.announce.max_age: \"1d\" is an invalid duration; use a number and a unit, like \"20s\", \"10m\" or \"1h\""},
		{"negative duration", ok + "journal: {wait: -1s}", "options.journal.wait: -1s is negative"},
		{"duration is a bool", ok + "journal: {wait: true}", "options.journal.wait: is true, but must be a duration like \"20s\", \"10m\" or \"1h\""},
		{"size of nothing", ok + "journal: {limit: lots}", "options.journal.limit: \"lots\": invalid size; use a number and a unit, like \"16MiB\" or \"5GB\""},
		{"size with an unknown unit", ok + "journal: {limit: 5G}", "options.journal.limit: \"5G\": invalid size; use a number and a unit, like \"16MiB\" or \"5GB\""},
		{"negative size", ok + "journal: {limit: -5GB}", "options.journal.limit: \"-5GB\": a size cannot be negative"},
		{"huge size", ok + "journal: {limit: 99999999TiB}", "options.journal.limit: \"99999999TiB\": the size is too large"},
		{"size is a list", ok + "journal: {limit: [1]}", "options.journal.limit: is a list, but must be a size like \"16MiB\" or \"5GB\""},

		{"broken glob", ok + "public: [\"oss/[a\"]", "options.public[0]: \"oss/[a\" is an invalid pattern; each [ and { must be closed, and \\ must be followed by a character"},
		{"empty glob", ok + "public: [a, \"\"]", "options.public[1]: an empty pattern matches nothing; remove it"},
		{"glob with a slash before", ok + "public: [/oss]", "options.public[0]: \"/oss\" begins with a slash, which no repository does"},
		{"glob with a slash after", ok + "public: [oss/]", "options.public[0]: \"oss/\" ends with a slash, which no repository does; \"oss/**\" matches everything below it"},
		{"glob with a tag", ok + "public: [\"oss/app:v1\"]", "options.public[0]: \"oss/app:v1\" has a colon; use the name of the repository without host and port, tag or digest"},
		{"glob in capitals", ok + "public: [OSS]", "options.public[0]: \"OSS\" has capital letters, which no repository has"},
		{"glob of an owner alone", ok + "public: [\"did:plc:abc\"]", "options.public[0]: \"did:plc:abc\" is only an owner; \"did:plc:abc/**\" matches all repositories of this owner"},
		{"glob of no owner", ok + "public: [\"did:plc/app\"]", "options.public[0]: \"did:plc\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"glob of an owner with a tag", ok + "public: [\"did:plc:abc/app:v1\"]", "options.public[0]: \"app:v1\" has a colon; use the name of the repository without host and port, tag or digest"},
		{"broken tag", hold + "announce: {tags: [\"{v\"]}", "options.announce.tags[0]: \"{v\" is an invalid pattern; each [ and { must be closed, and \\ must be followed by a character"},
		{"tag with a slash", hold + "announce: {tags: [\"oss/*\"]}", "options.announce.tags[0]: \"oss/*\" is an invalid tag pattern: tags have neither slashes nor colons"},

		{"no hostname", ok + "hold: {}", "options.hold.hostname: required; " + validHostname},
		{"hostname is a DID", ok + "hold: {hostname: \"did:web:a.example.com\"}", "options.hold.hostname: \"did:web:a.example.com\" is a DID, which is derived from the hostname; " + validHostname},
		{"hostname is a URL", ok + "hold: {hostname: \"https://a.example.com\"}", "options.hold.hostname: \"https://a.example.com\" is a URL; remove the scheme; " + validHostname},
		{"hostname with a path", ok + "hold: {hostname: a.example.com/hold}", "options.hold.hostname: \"a.example.com/hold\" has a path, which an identity cannot have; " + validHostname},
		{"hostname with a port", ok + "hold: {hostname: \"a.example.com:5000\"}", "options.hold.hostname: \"a.example.com:5000\" has a port, which only localhost may have: a domain is resolved on port 443; " + validHostname},
		{"hostname is an address", ok + "hold: {hostname: \"127.0.0.1:5000\"}", "options.hold.hostname: \"127.0.0.1:5000\" is an IP address, which an identity cannot be; " + validHostname},
		{"hostname is an IPv6 address", ok + "hold: {hostname: \"::1\"}", "options.hold.hostname: \"::1\" is an IP address, which an identity cannot be; " + validHostname},
		{"hostname in capitals", ok + "hold: {hostname: Registry.example.com}", "options.hold.hostname: \"Registry.example.com\" has capital letters; " + validHostname},
		{"hostname of one word", ok + "hold: {hostname: registry}", "options.hold.hostname: \"registry\" is not a domain; " + validHostname},
		{"relay without a scheme", ok + "hold: {hostname: a.example.com, relays: [relay.example.com]}", `options.hold.relays[0]: "relay.example.com" is not the address of a relay; use an address like https://relay.example.com`},
		{"relay in the clear", ok + "hold: {hostname: a.example.com, relays: [\"https://r.example.com\", \"http://relay.example.com\"]}", `options.hold.relays[1]: "http://relay.example.com": only a relay on this machine can use http; use an address like https://relay.example.com`},
		{"relay inside", ok + "hold: {hostname: a.example.com, relays: [\"https://10.0.0.1\"]}", `options.hold.relays[0]: "https://10.0.0.1" is neither a public nor a loopback address; use an address like https://relay.example.com`},
		{"relay for localhost", ok + "hold: {hostname: \"localhost:5000\", relays: [\"https://r.example.com\"]}", "options.hold.relays: no relay can reach localhost:5000; remove relays, or use a domain as the hostname"},
		{"caller by its hostname", ok + "hold: {hostname: a.example.com, registries: [other.example.com]}", `options.hold.registries[0]: "other.example.com" is not a DID; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller with a service", ok + "hold: {hostname: a.example.com, owners: [\"did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto_pds\"]}", `options.hold.owners[0]: "did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto_pds" is not a DID; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller inside", ok + "hold: {hostname: a.example.com, owners: [\"did:web:b.example.com\", \"did:web:10.0.0.1\"]}", `options.hold.owners[1]: "did:web:10.0.0.1" is not the DID of an account; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller on another port", ok + "hold: {hostname: a.example.com, registries: [\"did:web:b.example.com%3A8443\"]}", `options.hold.registries[0]: "did:web:b.example.com%3A8443" is not the DID of an account; use one like "did:web:example.com" or "did:plc:…"`},
		{"hostname with a bad port", ok + "hold: {hostname: \"localhost:http\"}", "options.hold.hostname: \"localhost:http\" has an invalid port; " + validHostname},
		{"long display name", ok + "hold: {hostname: localhost, display_name: " + long + "}", "options.hold.display_name: invalid app.bsky.actor.profile record: grapheme too big (maximum 64, got 65) at $.displayName"},
		{"long description", ok + "hold: {hostname: localhost, description: " + strings.Repeat("x", 257) + "}", "options.hold.description: invalid app.bsky.actor.profile record: grapheme too big (maximum 256, got 257) at $.description"},
		{"heavy display name", ok + "hold: {hostname: localhost, display_name: " + strings.Repeat("👨‍👩‍👧‍👦", 30) + "}", "options.hold.display_name: invalid app.bsky.actor.profile record: string too big (maximum 640, got 750) at $.displayName"},

		{"moved nowhere", ok + "hold: {hostname: localhost, moved_to: {}}", "options.hold.moved_to.service: required; " + goodService},
		{"moved to a text", ok + "hold: {hostname: localhost, moved_to: \"https://pds.example.com\"}", "options.hold.moved_to: is \"https://pds.example.com\", but must be a section with options"},
		{"moved to nothing", ok + "hold: {hostname: localhost, moved_to: }", "options.hold.moved_to: has no value; set one or remove the line"},
		{"moved and misspelled", ok + "hold: {hostname: localhost, moved_to: {servce: \"https://pds.example.com\"}}", "options.hold.moved_to.servce: unknown option; did you mean service?"},
		{"moved to a domain", ok + moved("a.example.com", "pds.example.com"), "options.hold.moved_to.service: \"pds.example.com\" is not the URL of a host; " + goodService},
		{"moved to an endpoint", ok + moved("a.example.com", "https://pds.example.com/xrpc"), "options.hold.moved_to.service: \"https://pds.example.com/xrpc\" has more than a host; " + goodService},
		{"moved to a slash", ok + moved("a.example.com", "https://pds.example.com/"), "options.hold.moved_to.service: \"https://pds.example.com/\" has more than a host; " + goodService},
		{"moved to a query", ok + moved("a.example.com", "https://pds.example.com?"), "options.hold.moved_to.service: \"https://pds.example.com?\" has more than a host; " + goodService},
		{"moved with a password", ok + moved("a.example.com", "https://u:hunter2@pds.example.com"), "options.hold.moved_to.service: has a user name or a password, which everybody would read"},
		{"moved in the clear", ok + moved("a.example.com", "http://pds.example.com"), "options.hold.moved_to.service: \"http://pds.example.com\" is not https; http is only allowed on this machine; " + goodService},
		{"moved to a socket", ok + moved("a.example.com", "wss://pds.example.com"), "options.hold.moved_to.service: \"wss://pds.example.com\" is neither https nor http; " + goodService},
		{"moved to this machine", ok + moved("a.example.com", "https://localhost"), "options.hold.moved_to.service: \"https://localhost\" is this machine, which clients that resolve a.example.com cannot reach; " + goodService},
		{"moved to itself", ok + moved("a.example.com", "https://A.example.com"), "options.hold.moved_to.service: \"https://A.example.com\" is this hold; remove moved_to while the account is here"},
		{"moved with a word for a key", ok + "hold: {hostname: localhost, moved_to: {service: \"https://a.example.com\", key: hunter2}}", "options.hold.moved_to.key: is not a public key; " + goodKey},
		{"moved with another's DID", ok + "hold: {hostname: localhost, moved_to: {service: \"https://a.example.com\", key: \"did:web:hunter2\"}}", "options.hold.moved_to.key: is not a public key; " + goodKey},
		{"moved with a private key", ok + "hold: {hostname: localhost, moved_to: {service: \"https://a.example.com\", key: z3vLbHFBQiEF7Dwd9k1fmPZKZKUFTkUUcRRRw4qWjvBjPmW4}}", "options.hold.moved_to.key: is not a public key; " + goodKey},

		{"owner is a handle", ok + "owner: alice.example.com", "options.owner: \"alice.example.com\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"owner of another kind", ok + "owner: did:key:zabc", "options.owner: \"did:key:zabc\" is a DID of an unsupported method; use did:web or did:plc"},

		{"nobody to announce", ok + "announce: {}", "options.announce: there is no account to post with; set hold as well, or remove announce"},
		{"always too old", hold + "announce: {collect: 2h}", "options.announce.max_age: 1h0m0s is not longer than collect, 2h0m0s; every push would be too old to be announced"},
		{"collects for days", hold + "announce: {collect: 48h, max_age: 72h}", "options.announce.collect: 48h0m0s is too long; the maximum is 24h"},
		{"link that is none", hold + "announce: {link: example.com}", "options.announce.link: \"example.com\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link of another kind", hold + "announce: {link: \"javascript:alert(1)\"}", "options.announce.link: \"javascript:alert(1)\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link with a password", hold + "announce: {link: \"https://u:hunter2@example.com\"}", "options.announce.link: the link has a user name or a password, which everybody would read"},
		{"link with a blank in its host", hold + "announce: {link: \"https://a b.example.com/\"}", "options.announce.link: \"https://a b.example.com/\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link that is too long", hold + "announce: {link: \"https://example.com/" + strings.Repeat("x", 4096) + "\"}", "options.announce.link: \"https://example.com/" + strings.Repeat("x", 4096) + "\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"AppView of another machine without TLS", hold + "announce: {appview: \"http://appview.example.com\"}", "options.announce.appview: \"http://appview.example.com\": only an AppView on this machine can use http; use an address like https://public.api.bsky.app, or off"},
		{"AppView that is on", hold + "announce: {appview: on}", "options.announce.appview: is true, but must be an address or off"},
		{"four languages", hold + "announce: {langs: [en, de, fr, it]}", "options.announce.langs: 4 languages, but a post may have at most 3"},
		{"bad language", hold + "announce: {langs: [English]}", "options.announce.langs: \"English\" is not a language; write it like \"en\" or \"pt-BR\""},

		{"Redis without an address", ok + "redis: {}", "options.redis.addrs: required; use [\"redis:6379\"], or the registry's own section with redis: inherit"},
		{"Redis is a word", ok + "redis: \"redis:6379\"", "options.redis: \"redis:6379\" is neither \"inherit\", for the registry's own redis section, nor a section with addrs"},
		{"Redis is a URL", ok + "redis: {addrs: [\"redis://u:hunter2@a:6379\"]}", "options.redis.addrs[0]: is a URL; use host:port, like \"redis:6379\", and the options username, password_file, db and tls"},
		{"Redis without a port", ok + "redis: {addrs: [redis]}", "options.redis.addrs[0]: \"redis\" is an invalid address; use host:port, like \"redis:6379\""},
		{"negative database", ok + "redis: {addrs: [\"a:1\"], db: -1}", "options.redis.db: -1 is an invalid database number"},
		{"database of a cluster", ok + "redis: {addrs: [\"a:1\", \"b:1\"], db: 2}", "options.redis.db: several addrs without master_name are a cluster, which has only database 0"},
		{"half a certificate", ok + "redis: {addrs: [\"a:1\"], tls: {cert_file: /c}}", "options.redis.tls: has one of cert_file and key_file; set both or neither"},
		{"Redis with a name that is none", ok + "redis: {addrs: [\"a:1\"], name: \"a}b\"}", "options.redis.name: \"a}b\" is not a valid name; use 1 to 64 letters, digits, dots, underscores and hyphens"},
		{"nothing to inherit", ok + "redis: inherit", "options.redis: inherit takes the registry's redis section, which has no addrs; set them there or here"},

		{"empty pattern", ok + "count: {ignore_actors: [\" \"]}", "options.count.ignore_actors[0]: an empty pattern matches nothing; leave it out, or write * to match everything"},
		{"long pattern", ok + "count: {ignore_actors: [" + strings.Repeat("x", 513) + "]}", "options.count.ignore_actors[0]: the pattern has 513 bytes; at most 512 are allowed"},
		{"many patterns", ok + "count: {ignore_user_agents: [" + strings.Repeat("x,", 257) + "]}", "options.count.ignore_user_agents: has 257 patterns; at most 256 are allowed, since each request is compared with all of them"},
		{"no window", ok + "count: {head_window: 0}", "options.count.head_window: 0s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long"},
		{"long window", ok + "count: {head_window: 1h}", "options.count.head_window: 1h0m0s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long"},
		{"small segment", ok + "journal: {segment: 1MiB}", "options.journal.segment: 1MiB is out of range; it must be from 4MiB to 1GiB"},
		{"small limit", ok + "journal: {limit: 20MiB}", "options.journal.limit: 20MiB is less than two segments of 16MiB; the journal deletes whole segments"},
		{"no patience", ok + "journal: {wait: 0}", "options.journal.wait: 0s is out of range; it must be from 100ms to 5m0s, since a client waits for it"},
		{"address without a port", ok + "http: {addr: localhost}", "options.http.addr: \"localhost\" is an invalid listen address; use host:port, like \"127.0.0.1:5080\" or \":5080\""},
		{"address with a bad port", ok + "http: {addr: \":99999\"}", "options.http.addr: \":99999\" has an invalid port; use a number up to 65535"},
		{"too many braces", ok + "public: [\"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}\"]", "options.public[0]: \"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}\" expands to more than 256 globs; split it, or use * instead of braces"},
		{"no header", ok + "http: {client_header: \"X-Forwarded-For: 1\"}", "options.http.client_header: invalid header name \"X-Forwarded-For: 1\"; use the header that the proxy sets, such as \"X-Forwarded-For\""},
		{"a header of another form", ok + "http: {client_header: forwarded}", "options.http.client_header: the header Forwarded is not supported; let the proxy set \"X-Forwarded-For\""},
		{"a proxy by name", ok + "http: {proxies: [proxy]}", "options.http.proxies[0]: invalid address or network \"proxy\"; use one like \"10.0.0.7\", \"10.0.0.0/24\" or \"2001:db8::/64\""},
		{"a network with an address", ok + "http: {proxies: [10.0.0.1/24]}", "options.http.proxies[0]: invalid address or network \"10.0.0.1/24\"; use one like \"10.0.0.7\", \"10.0.0.0/24\" or \"2001:db8::/64\""},
		{"the registry's address", ok + "http: {addr: \"127.0.0.1:5000\"}", "options.http.addr: 127.0.0.1:5000 is the address of the registry itself; remove it to share that port"},

		{"all at once", "enabled: 1\npublic: [OSS, \"[\"]\nhold: {hostname: \"1.2.3.4\"}\njournal: {wait: soon}",
			"options.enabled: is 1, but must be true or false\n" +
				"options.journal.wait: \"soon\" is an invalid duration; use a number and a unit, like \"20s\", \"10m\" or \"1h\"\n" +
				"options.data: required; use a folder on a local disk, such as /var/lib/tidings\n" +
				"options.public[0]: \"OSS\" has capital letters, which no repository has\n" +
				"options.public[1]: \"[\" is an invalid pattern; each [ and { must be closed, and \\ must be followed by a character\n" +
				"options.hold.hostname: \"1.2.3.4\" is an IP address, which an identity cannot be; " + validHostname},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, found, err := FromRegistry(registry(t, tc.options, ""))
			if err == nil {
				t.Fatalf("accepted as %+v; want the error %q", o, tc.want)
			}
			if !found || o != nil {
				t.Errorf("found %v and %v beside the error", found, o)
			}
			if got := err.Error(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

// What environment variables and YAML give in more than one way.
func TestAlsoUnderstood(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		raw  map[string]any
		get  func(*Options) any
		want any
	}{
		{"one text for a list", map[string]any{"public": "oss/**"}, func(o *Options) any { return o.Public }, []string{"oss/**"}},
		{"a number for a text", map[string]any{"hold": map[any]any{"hostname": "localhost", "display_name": 42}}, func(o *Options) any { return o.Hold.DisplayName }, "42"},
		{"a text for a number", map[string]any{"redis": map[any]any{"addrs": "a:1", "db": "2"}}, func(o *Options) any { return o.Redis.DB }, 2},
		{"a text for a bool", map[string]any{"hold": map[string]any{"hostname": "localhost", "login": "true"}}, func(o *Options) any { return o.Hold.Login }, true},
		{"a bare size", map[string]any{"journal": map[any]any{"segment": 1 << 23}}, func(o *Options) any { return o.Journal.Segment }, Size(1 << 23)},
		{"a name taken apart", map[string]any{"hold": map[string]any{"hostname": "localhost", "key": map[string]any{"file": "/k"}}}, func(o *Options) any { return o.Hold.KeyFile }, "/k"},
		{"a longer one", map[string]any{"count": map[string]any{"ignore": map[string]any{"user": map[string]any{"agents": []any{"a"}}, "actors": "b"}}},
			func(o *Options) any { return append(o.Count.IgnoreUserAgents, o.Count.IgnoreActors...) }, []string{"a", "b"}},
		{"a section's name taken apart", map[string]any{"hold": map[string]any{"hostname": "localhost", "moved": map[any]any{"to": map[string]any{"service": "https://a.example.com"}}}},
			func(o *Options) any { return *o.Hold.MovedTo }, MovedTo{Service: "https://a.example.com"}},
		{"the registry's own type", map[string]any{"hold": configuration.Parameters{"hostname": "localhost"}}, func(o *Options) any { return o.Hold.Hostname }, "localhost"},
		{"switched off, and nothing else", map[string]any{"enabled": false, "data": ""}, func(o *Options) any { return o.Enabled }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, given := tc.raw["data"]; !given {
				tc.raw["data"] = "/d"
			}
			o, err := Parse(tc.raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.get(o); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v, want %#v", got, tc.want)
			}
		})
	}
}

// The same Parse must not change what the registry hands to it: it is the same
// map on every request.
func TestParseLeavesItsInput(t *testing.T) {
	t.Parallel()
	raw := map[string]any{"data": "/d", "hold": map[string]any{"hostname": "localhost", "key": map[string]any{"file": "/k"}}}
	before := fmt.Sprint(raw)
	for range 2 {
		if _, err := Parse(raw); err != nil {
			t.Fatal(err)
		}
	}
	if after := fmt.Sprint(raw); after != before {
		t.Errorf("Parse made %s of %s", after, before)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("data: /d\npublic: [\"**\"]\nhold: {hostname: localhost}\nannounce: {link: \"https://a/{{.Tag}}\"}")
	f.Add("redis: {addrs: [a], tls: {}}\njournal: {limit: 1e9GB, wait: 9999999h}")
	f.Add("? [a]\n: b\nhold: {key: {1: 2}}")
	f.Fuzz(func(t *testing.T, options string) {
		c, err := configuration.Parse(strings.NewReader("version: 0.1\nstorage: inmemory\nmiddleware: {repository: [{name: tidings, options:\n" + indent(options, "  ") + "\n}]}"))
		if err != nil {
			return
		}
		o, found, err := FromRegistry(c)
		if err != nil && o != nil {
			t.Errorf("options beside the error %v", err)
		}
		if err == nil && found {
			o.Warnings()
			o.Visible("a/b")
			if o.Announce != nil {
				o.Announce.Match("v1.2.3")
			}
		}
	})
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, options string
		reserve, hold Size
	}{
		{"neither", "hold: {hostname: localhost}", 1 << 30, 1 << 30},
		{"neither, no hold", "", 1 << 30, 0},
		{"reserve", "reserve: 5MiB\nhold: {hostname: localhost}", 5 << 20, 5 << 20},
		{"reserve, no hold", "reserve: 5MiB", 5 << 20, 0},
		{"the hold's is for both", "hold: {hostname: localhost, reserve: 7MiB}", 7 << 20, 7 << 20},
		{"both", "reserve: 5MiB\nhold: {hostname: localhost, reserve: 7MiB}", 5 << 20, 7 << 20},
		{"the least", "reserve: 1MiB", 1 << 20, 0},
	} {
		o := mustRead(t, "data: /d\n"+tc.options, "")
		var hold Size
		if o.Hold != nil {
			hold = o.Hold.Reserve
		}
		if o.Reserve != tc.reserve || hold != tc.hold {
			t.Errorf("%s: reserve %s, hold.reserve %s; want %s, %s", tc.name, o.Reserve, hold, tc.reserve, tc.hold)
		}
	}
	for options, want := range map[string]string{
		"reserve: 0":      "options.reserve: 0B is too small; the minimum is 1MiB",
		"reserve: 1023kB": "options.reserve: 1023kB is too small; the minimum is 1MiB",
		"hold: {hostname: localhost, reserve: 0}": "options.hold.reserve: 0B is too small; the minimum is 1MiB",
		"reserve: {}": "options.reserve: is a section, but must be a size like \"16MiB\" or \"5GB\"",
	} {
		if _, _, err := FromRegistry(registry(t, "data: /d\n"+options, "")); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", options, err, want)
		}
	}
}
