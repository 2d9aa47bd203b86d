package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// everyRemoteOption returns a section with all options, of which two exclude others.
func everyRemoteOption(t *testing.T) *Remote {
	t.Helper()
	all := *mustRead(t, `
data: /d
remote:
  hold: did:web:hold.example.com
  hostname: registry.example.com
  key_file: /k
  plc: https://plc.example.com
  pulls: true
  private: send
`, "").Remote
	all.Account = mustRead(t, `
data: /d
remote:
  hold: did:plc:ewvi7nxzyoun6zhxrhs64oiz
  account: {service: "https://pds.example.com", identifier: images.example.com, password_file: /p, plc: "https://plc.example.org"}
`, "").Remote.Account
	return &all
}

func TestRemote(t *testing.T) {
	t.Parallel()
	got := mustRead(t, "data: /d\nremote: {hold: \"did:web:hold.example.com\", hostname: registry.example.com}", "")
	want := &Remote{Hold: "did:web:hold.example.com", Hostname: "registry.example.com", Private: PrivateSkip}
	if !reflect.DeepEqual(got.Remote, want) {
		t.Errorf("got  %+v\nwant %+v", got.Remote, want)
	}
	if got.RemoteKeyFile() != "/d/remote.key" || got.Remote.Directory() != "" || got.Remote.CheckPassword() != nil {
		t.Errorf("key file %s, directory %q, password %v", got.RemoteKeyFile(), got.Remote.Directory(), got.Remote.CheckPassword())
	}
	all := everyRemoteOption(t)
	wantAll := &Remote{
		Hold: "did:web:hold.example.com", Hostname: "registry.example.com", KeyFile: "/k", PLC: "https://plc.example.com", Pulls: true, Private: PrivateSend,
		Account: &RemoteAccount{Service: "https://pds.example.com", Identifier: "images.example.com", PasswordFile: "/p", PLC: "https://plc.example.org"},
	}
	if !reflect.DeepEqual(all, wantAll) {
		t.Errorf("got  %+v\nwant %+v", all, wantAll)
	}
	if d := all.Directory(); d != "https://plc.example.com" {
		t.Errorf("the directory is %s", d)
	}
	all.PLC = ""
	if d := all.Directory(); d != "https://plc.example.org" {
		t.Errorf("without plc the directory is %s", d)
	}
	if err := all.CheckPassword(); err == nil || !strings.HasPrefix(err.Error(), "options.remote.account.password_file: ") {
		t.Errorf("a missing password file: %v", err)
	}
}

func TestRemoteMistakes(t *testing.T) {
	t.Parallel()
	const hold = "hold: \"did:web:hold.example.com\", "
	const validHostname = "use a domain like registry.example.com, or localhost:5000 for testing"
	for _, tc := range []struct{ name, section, want string }{
		{"empty", "{}", "options.remote.hold: required; use the DID of the hold, such as \"did:web:hold.example.com\"\n" +
			"options.remote.hostname: required, or account; use the domain of this registry, such as registry.example.com"},
		{"a hostname for the hold", "{hold: hold.example.com, hostname: a.example.com}", "options.remote.hold: \"hold.example.com\" is not a DID; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"an address for the hold", "{hold: \"did:web:10.0.0.1\", hostname: a.example.com}", "options.remote.hold: \"did:web:10.0.0.1\" is not the DID of an account; use one like \"did:web:example.com\" or \"did:plc:…\""},
		{"an address", "{" + hold + "hostname: \"1.2.3.4\"}", "options.remote.hostname: \"1.2.3.4\" is an IP address, which an identity cannot be; " + validHostname},
		{"its own hold", "{" + hold + "hostname: hold.example.com}", "options.remote.hold: is this registry itself; use the hold section for an account embedded in the registry"},
		{"two senders", "{" + hold + "hostname: a.example.com, account: {service: \"https://a.example.com\", identifier: a.example.com, password_file: /p}}",
			"options.remote: has hostname and account; the calls have one sender, so remove one of them"},
		{"a key with an account", "{" + hold + "key_file: /k, account: {service: \"https://a.example.com\", identifier: a.example.com, password_file: /p}}",
			"options.remote.key_file: belongs to hostname; the PDS has the key of the account, so remove it"},
		{"an empty account", "{" + hold + "account: {}}", "options.remote.account.service: invalid service \"\": want a URL such as https://bsky.social\n" +
			"options.remote.account.identifier: required; use the handle or the DID of the account, such as images.example.com\n" +
			"options.remote.account.password_file: required; write an app password of the account to a file with mode 0600"},
		{"a password", "{" + hold + "account: {service: \"https://a.example.com\", identifier: a.example.com, password: hunter2}}",
			"options.remote.account.password: secrets are not allowed here, since the registry shows its configuration at /debug/vars; write it to a file and set password_file\n" +
				"options.remote.account.password_file: required; write an app password of the account to a file with mode 0600"},
		{"invalid directories", "{" + hold + "plc: plc.example.com, account: {service: \"https://a.example.com\", identifier: a.example.com, password_file: /p, plc: x}}",
			"options.remote.account.plc: invalid service \"x\": want a URL such as https://bsky.social\n" +
				"options.remote.plc: invalid service \"plc.example.com\": want a URL such as https://bsky.social"},
		{"another private", "{" + hold + "hostname: a.example.com, private: hide}", "options.remote.private: is \"hide\", but must be skip or send"},
		{"misspelled", "{" + hold + "hostname: a.example.com, pull: true}", "options.remote.pull: unknown option; did you mean pulls?"},
		{"announce", "{" + hold + "hostname: a.example.com}\nannounce: {}", "options.announce: the hold of remote announces images, by its own configuration; remove announce"},
		{"a handle of an owner", "{" + hold + "hostname: a.example.com}\nowners: [{repositories: [\"a/**\"], owner: alice.example.com}, {repositories: [\"b/**\"], owner: \"did:web:b.example.com\"}]",
			"options.owners[0]: names a handle, but with remote an owner has to be a DID, since the calls of pushes have it"},
		{"two writers", "{" + hold + "hostname: a.example.com}\nhold: {hostname: localhost}", "options: hold and remote are sections of accounts; only one of them is allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, _, err := FromRegistry(registry(t, "data: /d\nremote: "+tc.section, ""))
			if err == nil {
				t.Fatalf("accepted as %+v; want the error %q", o, tc.want)
			}
			if got := err.Error(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestRemoteWarnings(t *testing.T) {
	t.Parallel()
	const remote = "data: /d\npublic: [a]\nremote: {hold: \"did:web:hold.example.com\", hostname: a.example.com"
	for _, tc := range []struct{ name, options, more, want string }{
		{"none", remote + "}", "", ""},
		{"counts that the hold publishes", remote + "}\nstats: {records: 1h}", "", "stats.records is without effect"},
		{"no counts", remote + "}\nstats: {records: off}", "", ""},
		{"nothing is public", strings.Replace(remote, "public: [a]", "", 1) + "}", "", "public is empty"},
		{"all is sent as private", strings.Replace(remote, "public: [a]", "", 1) + ", private: send}", "", ""},
		{"localhost", "data: /d\npublic: [a]\nremote: {hold: \"did:web:localhost%3A1\", hostname: \"localhost:2\"}", "", "this identity is for testing"},
		{"pull-through cache", remote + "}", "proxy: {remoteurl: \"https://registry.example.org\"}", "without remote.pulls"},
		{"pulls of a pull-through cache", remote + ", pulls: true}", "proxy: {remoteurl: \"https://registry.example.org\"}", ""},
		{"another certificate", remote + "}", "http: {addr: \":443\", draintimeout: 10s, tls: {letsencrypt: {cachefile: /c, hosts: [b.example.com]}}}", "does not include a.example.com"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := mustRead(t, tc.options, tc.more).Warnings()
			if tc.want == "" && len(got) > 0 || tc.want != "" && !slices.ContainsFunc(got, func(w string) bool { return strings.Contains(w, tc.want) }) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
