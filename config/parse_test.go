package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// registry parses a configuration file as the registry does, with options in the entry of
// tidings and more at the end.
func registry(t *testing.T, options, more string) *configuration.Configuration {
	t.Helper()
	if !strings.Contains(more, "http:") {
		more += "\nhttp: {addr: \"127.0.0.1:5000\", draintimeout: 10s}\n"
	}
	file := "version: 0.1\nstorage: inmemory\nmiddleware:\n  repository:\n    - name: tidings\n      options:\n" +
		indent(options, "        ") + "\n" + more
	c, err := configuration.Parse(strings.NewReader(file))
	if err != nil {
		t.Fatalf("the registry cannot parse the file: %v\n%s", err, file)
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
		Hold:     &Hold{Hostname: "localhost", Reserve: 1 << 30, Pulls: "trusted"},
		Reserve:  1 << 30,
		Announce: &Announce{Collect: 20 * time.Second, Cooldown: 10 * time.Minute, DailyLimit: 50, MaxAge: time.Hour, OnDelete: "keep", Card: true, Langs: []string{"en"}},
		Stats:    Stats{Records: DurationOrOff(6 * time.Hour)},
		Count:    Count{HeadWindow: 10 * time.Second},
		Journal:  Journal{Segment: 16 << 20, Limit: 1 << 30, Wait: 10 * time.Second},
		HTTP:     HTTP{Proxies: []string{"127.0.0.0/8", "::1"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	paths := []string{got.JournalDir(), got.StateDir(), got.HoldDir(), got.KeyFile(), got.PasswordFile(), got.LockFile(), got.CollectedDir()}
	if want := "[/d/journal /d/state /d/hold /d/hold.key /d/hold.password /d/lock /d/collected]"; fmt.Sprint(paths) != want {
		t.Errorf("paths are %v, want %v", paths, want)
	}
}

// account is a section with all that is required, and others can follow.
const account = `data: /d
account:
  service: https://pds.example.com
  identifier: images.example.com
  password_file: /p
`

func TestAccount(t *testing.T) {
	t.Parallel()
	got := mustRead(t, account, "")
	want := Account{Service: "https://pds.example.com", Identifier: "images.example.com", PasswordFile: "/p", Budget: Budget{Hour: 5000, Day: 35000}}
	if *got.Account != want {
		t.Errorf("got  %+v\nwant %+v", *got.Account, want)
	}
	if got := mustRead(t, account+"  budget: {hour: off, day: \"1000\"}", "").Account.Budget; got != (Budget{pds.NoLimit, 1000}) {
		t.Errorf("the budget is %+v", got)
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
  pulls: anyone
  audiences: ["did:web:old.example.com", "did:web:localhost%3A5001#atcr_hold"]
  plc: https://plc.example.com
  display_name: Näme
  description: More
  avatar: /a.png
  moved_to: {service: "https://pds.example.com", key: "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"}
owner: did:plc:ewvi7nxzyoun6zhxrhs64oiz
owners:
  - {repositories: ["a/**", b], owner: alice.example.com}
  - {repositories: ["c/**"], owner: "did:web:c.example.com"}
  - {first_component: handle}
actors: {strict: true, accounts: [{user: Alice, did: "did:web:alice.example.com"}]}
quota:
  tiers: {free: {limit: 5GiB}, "1": {limit: 0}}
  owners: [{owner: "did:web:a.example.com", tier: 1}]
  default: free
announce:
  tags: ["v*", edge]
  exclude: ["*-debug"]
  collect: 0
  cooldown: 30m
  daily_limit: 7
  max_age: 90m
  on_delete: delete
  mention_owner: true
  hashtags: [containers, oss]
  template: "{{.Name}}"
  annotations: [org.opencontainers.image.title]
  link: "https://example.com/{{.Repository}}?t={{.Tag}}&d={{.Digest}}"
  langs: [en, pt-BR, ja]
  appview: "https://appview.example.com"
  anonymous_pushes: true
  card: false
  publication: {name: Images, description: All of them, icon: /i.png}
  dry_run: true
  retags: true
stats: {records: 12h}
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
`, "http: {addr: \"127.0.0.1:5000\", draintimeout: 10s}\nauth: {htpasswd: {realm: r, path: /p}}\n")
	want := &Options{
		Enabled: true,
		Data:    "/d",
		Public:  []string{"a", "b/**", "did:web:localhost%3A5001/**"},
		Hold: &Hold{Hostname: "registry.example.com", KeyFile: "/k", Login: true, Reserve: 5e9, Relays: []string{"https://relay.example.com", "http://localhost:2470"},
			Registries: []string{"did:web:other.example.com", "did:web:localhost%3A5001"}, Owners: []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz"},
			Pulls: "anyone", Audiences: []string{"did:web:old.example.com", "did:web:localhost%3A5001#atcr_hold"}, PLC: "https://plc.example.com", DisplayName: "Näme", Description: "More", Avatar: "/a.png",
			MovedTo: &MovedTo{Service: "https://pds.example.com", Key: "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"}},
		Owner: "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		Owners: []OwnerRule{
			{Repositories: []string{"a/**", "b"}, Owner: "alice.example.com"},
			{Repositories: []string{"c/**"}, Owner: "did:web:c.example.com"},
			{FirstComponent: "handle"},
		},
		Actors: Actors{Strict: true, Accounts: []Actor{{User: "Alice", DID: "did:web:alice.example.com"}}},
		Quota:  &Quota{Tiers: map[string]Tier{"free": {5 << 30}, "1": {0}}, Owners: []QuotaOwner{{"did:web:a.example.com", "1"}}, Default: "free"},
		Announce: &Announce{Tags: []string{"v*", "edge"}, Exclude: []string{"*-debug"}, Cooldown: 30 * time.Minute, DailyLimit: 7, MaxAge: 90 * time.Minute,
			OnDelete: "delete", MentionOwner: true, Hashtags: []string{"containers", "oss"}, Template: "{{.Name}}", Annotations: []string{"org.opencontainers.image.title"}, Langs: []string{"en", "pt-BR", "ja"},
			Publication: &Publication{Name: "Images", Description: "All of them", Icon: "/i.png"},
			Link:        "https://example.com/{{.Repository}}?t={{.Tag}}&d={{.Digest}}", AppView: "https://appview.example.com", AnonymousPushes: true, DryRun: true, Retags: true},
		Stats: Stats{Records: DurationOrOff(12 * time.Hour)},
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
		t.Errorf("KeyFile = %s, want /k", got.KeyFile())
	}

	got.Remote = everyRemoteOption(t)
	got.Account = mustRead(t, account+"  plc: https://plc.example.com", "").Account // only one writer is allowed
	checkAllSet(t, "options", reflect.ValueOf(got))
}

// setToZero are the options that TestEveryOption sets to zero, which is not their default.
var setToZero = []string{"options.announce.collect", "options.announce.card", "options.redis.inherit"}

// checkAllSet checks that every option has another value than zero, so that the test
// covers all of them.
func checkAllSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	for name, i := range fields(v.Type()) {
		f := v.Field(i)
		switch {
		case f.Kind() == reflect.Struct || f.Kind() == reflect.Pointer && !f.IsNil():
			checkAllSet(t, path+"."+name, f)
		case f.IsZero() && !slices.Contains(setToZero, path+"."+name):
			t.Errorf("%s is not set in this test", path+"."+name)
		}
	}
}

func moved(hostname, service string) string {
	return fmt.Sprintf("hold: {hostname: %q, moved_to: {service: %q}}", hostname, service)
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	const ok = "data: /d\n"
	const validHostname = "use a domain like registry.example.com, or localhost:5000 for testing"
	const validService = "use a URL such as https://pds.example.com"
	const validPublicKey = "use the public key that the new host shows, such as zQ3sh… or did:key:zQ3sh…"
	const hold = ok + "hold: {hostname: localhost}\n"
	long := strings.Repeat("x", 65)
	for _, tc := range []struct{ name, options, want string }{
		{"no options", "{}", "options.data: required; use a folder on a local disk, such as /var/lib/tidings"},
		{"misspelled", hold + "anounce: {}", "options.anounce: unknown option; did you mean announce?"},
		{"swapped letters", hold + "anonunce: {}", "options.anonunce: unknown option; did you mean announce?"},
		{"camel case", hold + "announce: {maxAge: 2h}", "options.announce.maxAge: unknown option; did you mean max_age?"},
		{"with a hyphen", ok + "count: {head-window: 5s}", "options.count.head-window: unknown option; did you mean head_window?"},
		{"misspelled and required", ok + "hold: {hostnam: localhost}", "options.hold.hostnam: unknown option; did you mean hostname?"},
		{"no similar option", ok + "colour: red", "options.colour: unknown option; known options: account, actors, announce, api, count, data, enabled, hold, http, journal, owner, owners, public, quota, redis, remote, reserve, stats"},
		{"in the wrong section", hold + "collect: 5s", "options.collect: unknown option here; did you mean options.announce.collect?"},
		{"one section too deep", ok + "hold: {hostname: localhost, public: [\"**\"]}", "options.hold.public: unknown option here; did you mean options.public?"},
		{"name is a number", ok + "http: {1: x}", "options.http.1: unknown option; option names are strings"},
		{"name is a boolean", ok + "http: {true: x}", "options.http.true: unknown option; option names are strings"},

		{"password of the account", ok + "account: {service: \"https://example.com\", identifier: a.example.com, password: hunter2}", "options.account.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file\n" +
			"options.account.password_file: required; write an app password of the account to a file with mode 0600"},
		{"empty account", ok + "account: {}", "options.account.service: invalid service \"\": want a URL such as https://bsky.social\n" +
			"options.account.identifier: required; use the handle or the DID of the account, such as images.example.com\n" +
			"options.account.password_file: required; write an app password of the account to a file with mode 0600"},
		{"invalid account", ok + "account: {service: \"https://example.com/xrpc\", identifier: images, password_file: /p, plc: plc.example.com}",
			"options.account.service: invalid service \"https://example.com/xrpc\": want only a scheme and a host\n" +
				"options.account.identifier: invalid identifier \"images\": want a handle such as images.example.com, or a DID\n" +
				"options.account.plc: invalid service \"plc.example.com\": want a URL such as https://bsky.social"},
		{"budget", account + "  budget: {hour: 99, day: on}", "options.account.budget.day: is true, but must be a number of points or off\n" +
			"options.account.budget.hour: 99 points are too few; the minimum is 100"},
		{"quota without an account", ok + "quota: {tiers: {free: {limit: 1GB}}}", "options.quota: there are no records to count without an account; set hold or account as well, or remove quota"},
		{"quota without tiers", hold + "quota: {}", "options.quota.tiers: required; name a limit, such as `free: {limit: 5GiB}`"},
		{"tiers are a list", hold + "quota: {tiers: [free]}", "options.quota.tiers: is a list, but must be a section with options"},
		{"tier without a limit", hold + "quota: {tiers: {free: {}, paid: null}}", "options.quota.tiers.paid: has no value; set its limit\noptions.quota.tiers.free.limit: required; use a size like \"5GiB\""},
		{"tier is a size", hold + "quota: {tiers: {free: 5GiB}}", "options.quota.tiers.free: is \"5GiB\", but must be a section with options"},
		{"name of a tier", hold + "quota: {tiers: {\"a b\": {limit: 1GB}}}", "options.quota.tiers.a b: the name has a space or a character that is not printable ASCII"},
		{"option of a tier", hold + "quota: {tiers: {free: {limits: 1GB}}}", "options.quota.tiers.free.limits: unknown option; did you mean limit?"},
		{"owners of quotas", hold + "quota: {tiers: {free: {limit: 1GB}}, default: paid, owners: [{owner: alice, tier: free}, {owner: \"did:web:a.example.com\"}, {owner: \"did:web:a.example.com\", tier: free}, x]}",
			"options.quota.owners[3]: is \"x\", but must be a section with options\n" +
				"options.quota.default: \"paid\" is not one of the tiers: free\n" +
				"options.quota.owners[0].owner: " + identity.ValidateDID("alice").Error() + "\n" +
				"options.quota.owners[1].tier: required; use one of the tiers: free\n" +
				"options.quota.owners[2].owner: did:web:a.example.com is listed twice"},
		{"misspelled tier", hold + "quota: {tiers: {free: {limit: 1GB}, paid: {limit: 5GB}}, default: fre}", "options.quota.default: \"fre\" is not one of the tiers; did you mean free?"},
		{"owner without tiers", hold + "quota: {owners: [{owner: \"did:web:a.example.com\", tier: free}]}", "options.quota.tiers: required; name a limit, such as `free: {limit: 5GiB}`\n" +
			"options.quota.owners[0].tier: \"free\" is unknown: there are no tiers"},
		{"account and remote", account + "remote: {hold: \"did:web:hold.example.com\", hostname: a.example.com}", "options: account and remote are sections of accounts; only one of them is allowed"},
		{"account and hold", account + "hold: {hostname: localhost}", "options: account and hold are sections of accounts; only one of them is allowed"},

		{"password of Redis", ok + "redis: {addrs: [\"a:1\"], password: hunter2}", "options.redis.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"password by a short name", ok + "redis: {addrs: [\"a:1\"], passwd: hunter2}", "options.redis.passwd: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"misspelled password", ok + "redis: {addrs: [\"a:1\"], pasword: hunter2}", "options.redis.pasword: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file"},
		{"token", ok + "api: {token: hunter2}", "options.api.token: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set token_file"},
		{"bearer token", ok + "api: {bearer_token: hunter2}", "options.api.bearer_token: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set token_file"},
		{"key of the hold", ok + "hold: {hostname: localhost, key: hunter2}", "options.hold.key: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set key_file"},
		{"signing key", ok + "hold: {hostname: localhost, signing_key: hunter2}", "options.hold.signing_key: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set key_file"},
		{"password of the hold", ok + "hold: {hostname: localhost, password: hunter2}", "options.hold.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; `tidings hold password` creates one and stores its hash"},
		{"secret in another section", ok + "secret: hunter2", "options.secret: secrets are not allowed here, since the registry shows its configuration at /debug/vars; secrets are in files that *_file options name, and there is no such option for this"},

		{"section is a string", ok + "hold: localhost", "options.hold: is \"localhost\", but must be a section with options"},
		{"section is a list", ok + "journal: [a]", "options.journal: is a list, but must be a section with options"},
		{"section without a value", hold + "announce:", "options.announce: has no value; write `announce: {}` to use the defaults, or remove the line"},
		{"option without a value", ok + "public:", "options.public: has no value; set one or remove the line"},
		{"bool is a string", ok + "enabled: maybe", "options.enabled: is \"maybe\", but must be true or false"},
		{"bool is a number", ok + "hold: {hostname: localhost, login: 1}", "options.hold.login: is 1, but must be true or false"},
		{"string is a list", "data: [a, b]", "options.data: is a list, but must be a string; use quotes"},
		{"string is a float", "data: 1.5", "options.data: is 1.5, but must be a string; use quotes"},
		{"string is a bool", "data: yes", "options.data: is true, but must be a string; use quotes"},
		{"list is a section", ok + "public: {a: b}", "options.public: is a section, but must be a list of strings"},
		{"list of a list", ok + "public: [a, [b]]", "options.public[1]: is a list, but must be a string; use quotes"},
		{"list of nothing", ok + "public: [~]", "options.public[0]: is nothing, but must be a string; use quotes"},
		{"integer is a string", ok + "redis: {addrs: [\"a:1\"], db: first}", "options.redis.db: is \"first\", but must be an integer"},
		{"integer is a float", ok + "redis: {addrs: [\"a:1\"], db: 1.5}", "options.redis.db: is 1.5, but must be an integer"},

		{"duration without a unit", hold + "announce: {collect: 20}", "options.announce.collect: 20 has no unit; use a duration like \"20s\", \"10m\" or \"1h\""},
		{"duration in days", hold + "announce: {max_age: 1d}", "options.announce.max_age: \"1d\" is an invalid duration; use a number and a unit, like \"20s\", \"10m\" or \"1h\""},
		{"negative duration", ok + "journal: {wait: -1s}", "options.journal.wait: -1s is negative"},
		{"duration is a bool", ok + "journal: {wait: true}", "options.journal.wait: is true, but must be a duration like \"20s\", \"10m\" or \"1h\""},
		{"size without a number", ok + "journal: {limit: lots}", "options.journal.limit: \"lots\": invalid size; use a number and a unit, like \"16MiB\" or \"5GB\""},
		{"size with an unknown unit", ok + "journal: {limit: 5G}", "options.journal.limit: \"5G\": invalid size; use a number and a unit, like \"16MiB\" or \"5GB\""},
		{"negative size", ok + "journal: {limit: -5GB}", "options.journal.limit: \"-5GB\": a size cannot be negative"},
		{"huge size", ok + "journal: {limit: 99999999TiB}", "options.journal.limit: \"99999999TiB\": the size is too large"},
		{"size is a list", ok + "journal: {limit: [1]}", "options.journal.limit: is a list, but must be a size like \"16MiB\" or \"5GB\""},

		{"invalid glob", ok + "public: [\"oss/[a\"]", "options.public[0]: \"oss/[a\" is an invalid pattern; each [ and { must be closed, and \\ must be followed by a character"},
		{"empty glob", ok + "public: [a, \"\"]", "options.public[1]: an empty pattern matches nothing; remove it"},
		{"glob with a leading slash", ok + "public: [/oss]", "options.public[0]: \"/oss\" begins with a slash, which no repository does"},
		{"glob with two slashes", ok + "public: [\"oss//app\"]", "options.public[0]: \"oss//app\" has two slashes in a row, which no repository has"},
		{"glob with a trailing slash", ok + "public: [oss/]", "options.public[0]: \"oss/\" ends with a slash, which no repository does; \"oss/**\" matches everything below it"},
		{"glob with a tag", ok + "public: [\"oss/app:v1\"]", "options.public[0]: \"oss/app:v1\" has a colon; use the name of the repository without host and port, tag or digest"},
		{"glob with capital letters", ok + "public: [OSS]", "options.public[0]: \"OSS\" has capital letters, which no repository has"},
		{"glob with only an owner", ok + "public: [\"did:plc:abc\"]", "options.public[0]: \"did:plc:abc\" is only an owner; \"did:plc:abc/**\" matches all repositories of this owner"},
		{"glob with an invalid owner", ok + "public: [\"did:plc/app\"]", "options.public[0]: \"did:plc\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"glob with an owner and a tag", ok + "public: [\"did:plc:abc/app:v1\"]", "options.public[0]: \"app:v1\" has a colon; use the name of the repository without host and port, tag or digest"},
		{"invalid tag pattern", hold + "announce: {tags: [\"{v\"]}", "options.announce.tags[0]: \"{v\" is an invalid pattern; each [ and { must be closed, and \\ must be followed by a character"},
		{"tag pattern with a slash", hold + "announce: {tags: [\"oss/*\"]}", "options.announce.tags[0]: \"oss/*\" is an invalid tag pattern: tags have neither slashes nor colons"},

		{"no hostname", ok + "hold: {}", "options.hold.hostname: required; " + validHostname},
		{"hostname is a DID", ok + "hold: {hostname: \"did:web:a.example.com\"}", "options.hold.hostname: \"did:web:a.example.com\" is a DID, which is derived from the hostname; " + validHostname},
		{"hostname is a URL", ok + "hold: {hostname: \"https://a.example.com\"}", "options.hold.hostname: \"https://a.example.com\" is a URL; remove the scheme; " + validHostname},
		{"hostname with a path", ok + "hold: {hostname: a.example.com/hold}", "options.hold.hostname: \"a.example.com/hold\" has a path, which an identity cannot have; " + validHostname},
		{"hostname with a port", ok + "hold: {hostname: \"a.example.com:5000\"}", "options.hold.hostname: \"a.example.com:5000\" has a port, which only localhost may have: a domain is resolved on port 443; " + validHostname},
		{"hostname is an address", ok + "hold: {hostname: \"127.0.0.1:5000\"}", "options.hold.hostname: \"127.0.0.1:5000\" is an IP address, which an identity cannot be; " + validHostname},
		{"hostname is an IPv6 address", ok + "hold: {hostname: \"::1\"}", "options.hold.hostname: \"::1\" is an IP address, which an identity cannot be; " + validHostname},
		{"hostname with capital letters", ok + "hold: {hostname: Registry.example.com}", "options.hold.hostname: \"Registry.example.com\" has capital letters; " + validHostname},
		{"hostname is not a domain", ok + "hold: {hostname: registry}", "options.hold.hostname: \"registry\" is not a domain; " + validHostname},
		{"relay without a scheme", ok + "hold: {hostname: a.example.com, relays: [relay.example.com]}", `options.hold.relays[0]: "relay.example.com" is not the address of a relay; use an address like https://relay.example.com`},
		{"relay without TLS", ok + "hold: {hostname: a.example.com, relays: [\"https://r.example.com\", \"http://relay.example.com\"]}", `options.hold.relays[1]: "http://relay.example.com": only a relay on this machine can use http; use an address like https://relay.example.com`},
		{"relay with a private address", ok + "hold: {hostname: a.example.com, relays: [\"https://10.0.0.1\"]}", `options.hold.relays[0]: "https://10.0.0.1" is neither a public nor a loopback address; use an address like https://relay.example.com`},
		{"relay for localhost", ok + "hold: {hostname: \"localhost:5000\", relays: [\"https://r.example.com\"]}", "options.hold.relays: no relay can reach localhost:5000; remove relays, or use a domain as the hostname"},
		{"caller is a hostname", ok + "hold: {hostname: a.example.com, registries: [other.example.com]}", `options.hold.registries[0]: "other.example.com" is not a DID; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller with a service", ok + "hold: {hostname: a.example.com, owners: [\"did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto_pds\"]}", `options.hold.owners[0]: "did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto_pds" is not a DID; use one like "did:web:example.com" or "did:plc:…"`},
		{"pulls", ok + "hold: {hostname: a.example.com, pulls: everyone}", `options.hold.pulls: "everyone" is neither "trusted" nor "anyone"`},
		{"pulls empty", ok + "hold: {hostname: a.example.com, pulls: \"\"}", `options.hold.pulls: "" is neither "trusted" nor "anyone"`},
		{"audience is a wildcard", ok + "hold: {hostname: a.example.com, audiences: [\"did:web:b.example.com\", \"did:web:b.example.com#*\"]}", `options.hold.audiences[1]: "did:web:b.example.com#*" has an invalid service ID; use one like "did:web:b.example.com#atcr_hold"`},
		{"invalid directory", ok + "hold: {hostname: a.example.com, plc: plc.example.com}", `options.hold.plc: invalid service "plc.example.com": want a URL such as https://bsky.social`},
		{"audience is no DID", ok + "hold: {hostname: a.example.com, audiences: [\"#atcr_hold\"]}", `options.hold.audiences[0]: "" is not a DID; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller is an IP address", ok + "hold: {hostname: a.example.com, owners: [\"did:web:b.example.com\", \"did:web:10.0.0.1\"]}", `options.hold.owners[1]: "did:web:10.0.0.1" is not the DID of an account; use one like "did:web:example.com" or "did:plc:…"`},
		{"caller with a port", ok + "hold: {hostname: a.example.com, registries: [\"did:web:b.example.com%3A8443\"]}", `options.hold.registries[0]: "did:web:b.example.com%3A8443" is not the DID of an account; use one like "did:web:example.com" or "did:plc:…"`},
		{"hostname with an invalid port", ok + "hold: {hostname: \"localhost:http\"}", "options.hold.hostname: \"localhost:http\" has an invalid port; " + validHostname},
		{"long display name", ok + "hold: {hostname: localhost, display_name: " + long + "}", "options.hold.display_name: invalid app.bsky.actor.profile record: grapheme too big (maximum 64, got 65) at $.displayName"},
		{"long description", ok + "hold: {hostname: localhost, description: " + strings.Repeat("x", 257) + "}", "options.hold.description: invalid app.bsky.actor.profile record: grapheme too big (maximum 256, got 257) at $.description"},
		{"display name with too many bytes", ok + "hold: {hostname: localhost, display_name: " + strings.Repeat("👨‍👩‍👧‍👦", 30) + "}", "options.hold.display_name: invalid app.bsky.actor.profile record: string too big (maximum 640, got 750) at $.displayName"},

		{"moved_to without a service", ok + "hold: {hostname: localhost, moved_to: {}}", "options.hold.moved_to.service: required; " + validService},
		{"moved_to is a string", ok + "hold: {hostname: localhost, moved_to: \"https://pds.example.com\"}", "options.hold.moved_to: is \"https://pds.example.com\", but must be a section with options"},
		{"moved_to without a value", ok + "hold: {hostname: localhost, moved_to: }", "options.hold.moved_to: has no value; set one or remove the line"},
		{"misspelled service", ok + "hold: {hostname: localhost, moved_to: {servce: \"https://pds.example.com\"}}", "options.hold.moved_to.servce: unknown option; did you mean service?"},
		{"service with a password", ok + moved("a.example.com", "https://u:hunter2@pds.example.com"), "options.hold.moved_to.service: has a user name or a password, which everybody would read"},
		{"key of another form", ok + "hold: {hostname: localhost, moved_to: {service: \"https://a.example.com\", key: hunter2}}", "options.hold.moved_to.key: is not a public key; " + validPublicKey},

		{"owner is a handle", ok + "owner: alice.example.com", "options.owner: \"alice.example.com\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"owners is a section", ok + "owners: {a: b}", "options.owners: is a section, but must be a list of sections"},
		{"owner rule is a string", ok + "owners: [\"a/**\"]", "options.owners[0]: is \"a/**\", but must be a section with options"},
		{"owner rule without a pattern", hold + "owners: [{owner: alice.example.com}]", "options.owners[0].repositories: required; list patterns such as \"alice/**\""},
		{"owner rule without an owner", hold + "owners: [{repositories: [a]}]", "options.owners[0].owner: required; use a DID or a handle, like \"alice.example.com\""},
		{"misspelled owner rule", hold + "owners: [{repositories: [a], ownr: alice.example.com}]", "options.owners[0].ownr: unknown option; did you mean owner?"},
		{"owner rule of another owner's images", hold + "owners: [{repositories: [\"did:plc:abc/**\"], owner: alice.example.com}]", "options.owners[0].repositories[0]: \"did:plc:abc/**\" is of images that other registries report, which have their owner; remove it"},
		{"owner rule with an invalid pattern", hold + "owners: [{repositories: [OSS], owner: alice.example.com}]", "options.owners[0].repositories[0]: \"OSS\" has capital letters, which no repository has"},
		{"owner rule with a user", hold + "owners: [{repositories: [a], owner: alice}]", "options.owners[0].owner: \"alice\" is not a handle; use a domain like \"alice.example.com\""},
		{"owner rule with capital letters", hold + "owners: [{repositories: [a], owner: Alice.example.com}]", "options.owners[0].owner: \"Alice.example.com\" has capital letters; handles are written in small letters"},
		{"owner rule with a local handle", hold + "owners: [{repositories: [a], owner: alice.localhost}]", "options.owners[0].owner: \"alice.localhost\" has a top-level domain that the network does not allow in handles"},
		{"owner rule with an invalid DID", hold + "owners: [{repositories: [a], owner: \"did:web:10.0.0.1\"}]", "options.owners[0].owner: \"did:web:10.0.0.1\" is not the DID of an account; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"first component without strict", hold + "owners: [{first_component: handle}]", "options.owners[0].first_component: needs actors.strict: true; without it every user could push images in the name of any handle"},
		{"first component of another kind", hold + "actors: {strict: true}\nowners: [{first_component: did}]", "options.owners[0].first_component: \"did\" is invalid; the only value is handle\noptions.actors.strict: the registry has no auth, so no user is known and every push would be refused; add auth or remove strict"},
		{"first component with a pattern", hold + "actors: {strict: true}\nowners: [{first_component: handle, repositories: [a]}]", "options.owners[0]: has first_component, which names the owner of all repositories that begin with a handle; remove repositories and owner, or make them a rule of their own\noptions.actors.strict: the registry has no auth, so no user is known and every push would be refused; add auth or remove strict"},
		{"many owner rules", hold + "owners: [" + strings.Repeat("{repositories: [a], owner: alice.example.com},", 101) + "]", "options.owners: has 101 rules with 101 patterns; at most 100 rules and 300 patterns are allowed"},
		{"actor without a user", ok + "actors: {accounts: [{did: \"did:web:a.example.com\"}]}", "options.actors.accounts[0].user: required; use the name that the user logs in to the registry with"},
		{"actor with a handle", ok + "actors: {accounts: [{user: a, did: a.example.com}]}", "options.actors.accounts[0].did: \"a.example.com\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"actor listed twice", ok + "actors: {accounts: [{user: a, did: \"did:web:a.example.com\"}, {user: a, did: \"did:web:b.example.com\"}]}", "options.actors.accounts[1].user: \"a\" is listed twice; a user has one account"},
		{"strict without an owner", ok + "actors: {strict: true}", "options.actors.strict: there is no owner of repositories without a rule; set owner, hold or account"},
		{"owner of an unsupported method", ok + "owner: did:key:zabc", "options.owner: \"did:key:zabc\" is a DID of an unsupported method; use did:web or did:plc"},

		{"announce without an account", ok + "announce: {}", "options.announce: there is no account to post with; set hold or account as well, or remove announce"},
		{"max_age below collect", hold + "announce: {collect: 2h}", "options.announce.max_age: 1h0m0s is not longer than collect, 2h0m0s; every push would be too old to be announced"},
		{"invalid exclude pattern", hold + "announce: {exclude: [\"a/b\"]}", "options.announce.exclude[0]: \"a/b\" is an invalid tag pattern: tags have neither slashes nor colons"},
		{"cooldown too long", hold + "announce: {cooldown: 25h}", "options.announce.cooldown: 25h0m0s is out of range; it must be from 0 to 24h0m0s"},
		{"negative daily limit", hold + "announce: {daily_limit: -1}", "options.announce.daily_limit: -1 is negative; use a number of posts, or 0 for no limit"},
		{"another on_delete", hold + "announce: {on_delete: \"yes\"}", "options.announce.on_delete: \"yes\" is neither keep nor delete"},
		{"template of an unknown field", hold + "announce: {template: \"{{.Nope}}\"}", "options.announce.template: the template fails for oss/app:v1.2.3: execute the template: line 1, column 3: there is no .Nope; use .Repository, .Name, .Tag, .Tags, .MoreTags, .Digest, .Size, .Layers, .Images, .Platforms, .MorePlatforms, .Reference, .Link, .Time, .First, .MoreVersions, .Owner, .Handle, .Hashtags, .Annotations"},
		{"annotation twice", hold + "announce: {annotations: [a, a]}", "options.announce.annotations: \"a\" is listed twice"},
		{"hashtag with #", hold + "announce: {hashtags: [\"#oss\"]}", "options.announce.hashtags: \"#oss\" begins with #, which is added; remove it"},
		{"nine hashtags", hold + "announce: {hashtags: [a, b, c, d, e, f, g, h, i]}", "options.announce.hashtags: 9 hashtags, but a post may have at most 8"},
		{"mention without an owner", hold + "announce: {mention_owner: true}", "options.announce.mention_owner: there is no owner to mention; set owner to the DID of another account, or owners"},
		{"collect too long", hold + "announce: {collect: 48h, max_age: 72h}", "options.announce.collect: 48h0m0s is too long; the maximum is 24h"},
		{"link is not a URL", hold + "announce: {link: example.com}", "options.announce.link: \"example.com\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link with another scheme", hold + "announce: {link: \"javascript:alert(1)\"}", "options.announce.link: \"javascript:alert(1)\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link with a password", hold + "announce: {link: \"https://u:hunter2@example.com\"}", "options.announce.link: the link has a user name or a password, which everybody would read"},
		{"link with a space in its host", hold + "announce: {link: \"https://a b.example.com/\"}", "options.announce.link: \"https://a b.example.com/\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"link too long", hold + "announce: {link: \"https://example.com/" + strings.Repeat("x", 4096) + "\"}", "options.announce.link: \"https://example.com/" + strings.Repeat("x", 4096) + "\" is an invalid link; use an address such as \"https://example.com/{{.Repository}}\""},
		{"AppView of another machine without TLS", hold + "announce: {appview: \"http://appview.example.com\"}", "options.announce.appview: \"http://appview.example.com\": only an AppView on this machine can use http; use an address like https://public.api.bsky.app, or off"},
		{"AppView that is on", hold + "announce: {appview: on}", "options.announce.appview: is true, but must be an address or off"},
		{"four languages", hold + "announce: {langs: [en, de, fr, it]}", "options.announce.langs: 4 languages, but a post may have at most 3"},
		{"invalid language", hold + "announce: {langs: [English]}", "options.announce.langs: \"English\" is not a language; write it like \"en\" or \"pt-BR\""},

		{"Redis without an address", ok + "redis: {}", "options.redis.addrs: required; use [\"redis:6379\"], or the registry's own section with redis: inherit"},
		{"Redis is a string", ok + "redis: \"redis:6379\"", "options.redis: \"redis:6379\" is neither \"inherit\", for the registry's own redis section, nor a section with addrs"},
		{"Redis is a URL", ok + "redis: {addrs: [\"redis://u:hunter2@a:6379\"]}", "options.redis.addrs[0]: is a URL; use host:port, like \"redis:6379\", and the options username, password_file, db and tls"},
		{"Redis without a port", ok + "redis: {addrs: [redis]}", "options.redis.addrs[0]: \"redis\" is an invalid address; use host:port, like \"redis:6379\""},
		{"negative database", ok + "redis: {addrs: [\"a:1\"], db: -1}", "options.redis.db: -1 is an invalid database number"},
		{"database of a cluster", ok + "redis: {addrs: [\"a:1\", \"b:1\"], db: 2}", "options.redis.db: several addrs without master_name are a cluster, which has only database 0"},
		{"certificate without a key", ok + "redis: {addrs: [\"a:1\"], tls: {cert_file: /c}}", "options.redis.tls: has one of cert_file and key_file; set both or neither"},
		{"Redis with an invalid name", ok + "redis: {addrs: [\"a:1\"], name: \"a}b\"}", "options.redis.name: \"a}b\" is not a valid name; use 1 to 64 letters, digits, dots, underscores and hyphens"},
		{"nothing to inherit", ok + "redis: inherit", "options.redis: inherit uses the registry's redis section, which has no addrs; set them there or here"},

		{"empty pattern", ok + "count: {ignore_actors: [\" \"]}", "options.count.ignore_actors[0]: an empty pattern matches nothing; leave it out, or write * to match everything"},
		{"long pattern", ok + "count: {ignore_actors: [" + strings.Repeat("x", 513) + "]}", "options.count.ignore_actors[0]: the pattern has 513 bytes; at most 512 are allowed"},
		{"many patterns", ok + "count: {ignore_user_agents: [" + strings.Repeat("x,", 257) + "]}", "options.count.ignore_user_agents: has 257 patterns; at most 256 are allowed, since each request is compared with all of them"},
		{"head_window of 0", ok + "count: {head_window: 0}", "options.count.head_window: 0s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long"},
		{"head_window too long", ok + "count: {head_window: 1h}", "options.count.head_window: 1h0m0s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long"},
		{"segment too small", ok + "journal: {segment: 1MiB}", "options.journal.segment: 1MiB is out of range; it must be from 4MiB to 1GiB"},
		{"limit too small", ok + "journal: {limit: 20MiB}", "options.journal.limit: 20MiB is less than two segments of 16MiB; the journal deletes whole segments"},
		{"wait of 0", ok + "journal: {wait: 0}", "options.journal.wait: 0s is out of range; it must be from 100ms to 5m0s, since a client waits for it"},
		{"stats.records too short", ok + "stats: {records: 30s}", "options.stats.records: 30s is out of range; it must be from 1m to 720h, or off"},
		{"stats.records is a number", ok + "stats: {records: 6}", "options.stats.records: is 6, but must be a duration like \"6h\", or off"},
		{"stats.records is a word", ok + "stats: {records: never}", "options.stats.records: is \"never\", but must be a duration like \"6h\", or off"},
		{"stats.records is true", ok + "stats: {records: true}", "options.stats.records: is true, but must be a duration like \"6h\", or off"},
		{"address without a port", ok + "http: {addr: localhost}", "options.http.addr: \"localhost\" is an invalid listen address; use host:port, like \"127.0.0.1:5080\" or \":5080\""},
		{"address with an invalid port", ok + "http: {addr: \":99999\"}", "options.http.addr: \":99999\" has an invalid port; use a number up to 65535"},
		{"too many braces", ok + "public: [\"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}\"]", "options.public[0]: \"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}\" expands to more than 256 globs; split it, or use * instead of braces"},
		{"invalid header name", ok + "http: {client_header: \"X-Forwarded-For: 1\"}", "options.http.client_header: invalid header name \"X-Forwarded-For: 1\"; use the header that the proxy sets, such as \"X-Forwarded-For\""},
		{"unsupported header", ok + "http: {client_header: forwarded}", "options.http.client_header: the header Forwarded is not supported; let the proxy set \"X-Forwarded-For\""},
		{"proxy is a hostname", ok + "http: {proxies: [proxy]}", "options.http.proxies[0]: invalid address or network \"proxy\"; use one like \"10.0.0.7\", \"10.0.0.0/24\" or \"2001:db8::/64\""},
		{"network with host bits", ok + "http: {proxies: [10.0.0.1/24]}", "options.http.proxies[0]: invalid address or network \"10.0.0.1/24\"; use one like \"10.0.0.7\", \"10.0.0.0/24\" or \"2001:db8::/64\""},
		{"address of the registry", ok + "http: {addr: \"127.0.0.1:5000\"}", "options.http.addr: 127.0.0.1:5000 is the address of the registry itself; remove it to share that port"},

		{"several mistakes", "enabled: 1\npublic: [OSS, \"[\"]\nhold: {hostname: \"1.2.3.4\"}\njournal: {wait: soon}",
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
				t.Errorf("got found %v and options %v with the error", found, o)
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

// YAML and environment variables can have a value in several forms.
func TestAcceptedForms(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		raw  map[string]any
		get  func(*Options) any
		want any
	}{
		{"a string for a list", map[string]any{"public": "oss/**"}, func(o *Options) any { return o.Public }, []string{"oss/**"}},
		{"a number for a string", map[string]any{"hold": map[any]any{"hostname": "localhost", "display_name": 42}}, func(o *Options) any { return o.Hold.DisplayName }, "42"},
		{"a string for a number", map[string]any{"redis": map[any]any{"addrs": "a:1", "db": "2"}}, func(o *Options) any { return o.Redis.DB }, 2},
		{"a string for a bool", map[string]any{"hold": map[string]any{"hostname": "localhost", "login": "true"}}, func(o *Options) any { return o.Hold.Login }, true},
		{"a number for a size", map[string]any{"journal": map[any]any{"segment": 1 << 23}}, func(o *Options) any { return o.Journal.Segment }, Size(1 << 23)},
		{"a split name", map[string]any{"hold": map[string]any{"hostname": "localhost", "key": map[string]any{"file": "/k"}}}, func(o *Options) any { return o.Hold.KeyFile }, "/k"},
		{"a longer split name", map[string]any{"count": map[string]any{"ignore": map[string]any{"user": map[string]any{"agents": []any{"a"}}, "actors": "b"}}},
			func(o *Options) any { return append(o.Count.IgnoreUserAgents, o.Count.IgnoreActors...) }, []string{"a", "b"}},
		{"the split name of a section", map[string]any{"hold": map[string]any{"hostname": "localhost", "moved": map[any]any{"to": map[string]any{"service": "https://a.example.com"}}}},
			func(o *Options) any { return *o.Hold.MovedTo }, MovedTo{Service: "https://a.example.com"}},
		{"a section of the registry's type", map[string]any{"hold": configuration.Parameters{"hostname": "localhost"}}, func(o *Options) any { return o.Hold.Hostname }, "localhost"},
		{"disabled without data", map[string]any{"enabled": false, "data": ""}, func(o *Options) any { return o.Enabled }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, given := tc.raw["data"]; !given {
				tc.raw["data"] = "/d"
			}
			o, m := parse(tc.raw)
			if err := m.err(); err != nil {
				t.Fatal(err)
			}
			if got := tc.get(o); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v, want %#v", got, tc.want)
			}
		})
	}
}

// parse must not change its input, which is the registry's configuration.
func TestParseKeepsInput(t *testing.T) {
	t.Parallel()
	raw := map[string]any{"data": "/d", "hold": map[string]any{"hostname": "localhost", "key": map[string]any{"file": "/k"}}}
	before := fmt.Sprint(raw)
	for range 2 {
		if _, m := parse(raw); m.err() != nil {
			t.Fatal(m.err())
		}
	}
	if after := fmt.Sprint(raw); after != before {
		t.Errorf("parse changed its input from %s to %s", before, after)
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
			t.Errorf("got options with the error %v", err)
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
