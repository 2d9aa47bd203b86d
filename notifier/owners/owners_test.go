package owners

import (
	"errors"
	"testing"
)

const (
	own   = "did:web:registry.example.com"
	alice = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	bob   = "did:web:bob.example.net"
)

func rules() *Rules {
	return &Rules{Default: own, List: []Rule{
		{Repositories: []string{"team/secret/**"}, Owner: Parse(own)},
		{Repositories: []string{"team/*", "{x,y}/**"}, Owner: Parse(alice)},
		{Repositories: []string{"team/**"}, Owner: Parse("team.example.com")},
		{FirstComponent: true},
		{Repositories: []string{"*.example.org/**"}, Owner: Parse(bob)},
	}}
}

func TestOf(t *testing.T) {
	t.Parallel()
	for repository, want := range map[string]Owner{
		"app":                   {DID: own},
		"team":                  {DID: own},
		"team/app":              {DID: alice},
		"x/a/b":                 {DID: alice},
		"team/a/b":              {Handle: "team.example.com"},
		"team/secret/a":         {DID: own}, // the first rule that matches
		"team/secret":           {DID: alice},
		"carol.example.com/app": {Handle: "carol.example.com"},
		"carol.example.com":     {Handle: "carol.example.com"},
		"a.example.org/app":     {Handle: "a.example.org"},
		"carol.localhost/app":   {DID: own}, // no handle
		"app/carol.example.com": {DID: own},
		"10.0.0.1/app":          {DID: own},
	} {
		if got := rules().Of(repository); got != want {
			t.Errorf("%s: got %v, want %v", repository, got, want)
		}
	}
	if got := (&Rules{}).Of("app"); got != (Owner{}) {
		t.Errorf("without rules: %v", got)
	}
}

// String differs whenever the owner of a repository may.
func TestString(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, list := range [][]Rule{
		nil,
		{{Repositories: []string{"a"}, Owner: Parse(alice)}},
		{{Repositories: []string{"b"}, Owner: Parse(alice)}},
		{{Repositories: []string{"a"}, Owner: Parse(bob)}},
		{{Repositories: []string{"a", "b"}, Owner: Parse(alice)}},
		{{Repositories: []string{"a"}, Owner: Parse(alice)}, {FirstComponent: true}},
		{{FirstComponent: true}, {Repositories: []string{"a"}, Owner: Parse(alice)}},
	} {
		text := (&Rules{List: list}).String()
		if seen[text] {
			t.Errorf("%v: %q is that of other rules", list, text)
		}
		seen[text] = true
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	a := &Access{
		Rules:    rules(),
		Accounts: map[string]string{"owner": own, "alice": alice, "bob": bob, "Alice": bob},
		Resolved: func(handle string) (string, bool) {
			return map[string]string{"team.example.com": alice}[handle], handle == "team.example.com"
		},
	}
	for _, test := range []struct{ repository, actor, want string }{
		{"app", "owner", ""},
		{"team/app", "alice", ""},
		{"team/a/b", "alice", ""},
		{"app", "alice", "UserMismatch: the repository app belongs to " + own + ", and the user alice is mapped to " + alice},
		{"team/app", "Alice", "UserMismatch: the repository team/app belongs to " + alice + ", and the user Alice is mapped to " + bob},
		{"team/app", "carol", "UserMismatch: the repository team/app belongs to " + alice + ", and the user carol is mapped to no account"},
		{"team/app", "", "UserMismatch: the repository team/app belongs to " + alice + ", and the push is anonymous"},
		{"team/a/b", "bob", "UserMismatch: the repository team/a/b belongs to team.example.com (" + alice + "), and the user bob is mapped to " + bob},
		{"team/a/b", "", "UserMismatch: the repository team/a/b belongs to team.example.com, and the push is anonymous"},
		{"carol.example.com/app", "bob", "unresolved handle carol.example.com"},
		{"carol.example.com/app", "carol", "UserMismatch: the repository carol.example.com/app belongs to carol.example.com, and the user carol is mapped to no account"},
	} {
		got := ""
		if err := a.Check(test.repository, test.actor); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s by %q: got %q, want %q", test.repository, test.actor, got, test.want)
		}
	}
	if err := a.Check("carol.example.com/app", "bob"); !errors.Is(err, ErrUnresolved) {
		t.Errorf("got %v", err)
	}
}
