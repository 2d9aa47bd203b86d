package config

import (
	"reflect"
	"testing"
)

func TestPublication(t *testing.T) {
	t.Parallel()
	const hold = "data: /d\nhold: {hostname: registry.example.com}\n"
	for option, want := range map[string]*Publication{
		"true": {}, `"true"`: {}, "false": nil, "{}": {}, "{name: A, icon: /missing.png}": {Name: "A", Icon: "/missing.png"},
	} {
		o := mustRead(t, hold+"announce: {anonymous_pushes: true, publication: "+option+"}", "")
		if got := o.Announce.Publication; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", option, got, want)
		}
	}
}

func TestPublicationMistakes(t *testing.T) {
	t.Parallel()
	const (
		path    = "options.announce.publication: "
		account = "data: /d\naccount: {service: \"https://pds.example.com\", identifier: a.example.com, password_file: /p}\n"
		public  = "data: /d\nhold: {hostname: registry.example.com}\n"
		unknown = path + `readers of a publication open its pages, whose address is not known; set http.host of the registry's configuration, like "https://registry.example.com"`
	)
	for _, tc := range []struct{ name, options, more, option, want string }{
		{"not a section", public, "", "yes please", path + `is "yes please", but must be true, false, or a section with name, description and icon`},
		{"unknown", public, "", "{title: x}", "options.announce.publication.title: unknown option; known options: description, icon, name"},
		{"localhost", "data: /d\nhold: {hostname: \"localhost:5000\"}\n", "", "true",
			path + "localhost:5000 is not reachable from the network, but readers of a publication open its pages; use a domain as hold.hostname, or remove publication"},
		{"account without a host", account, "http: {addr: 127.0.0.1:5000}\n", "true", unknown},
		{"account with a plain host", account, "http: {addr: 127.0.0.1:5000, host: \"http://registry.example.com\"}\n", "true", unknown},
		{"account with a host", account, "http: {addr: 127.0.0.1:5000, host: \"https://registry.example.com\"}\n", "true", ""},
		{"account with a listener", account + "http: {addr: 127.0.0.1:5001}\n", "http: {addr: 127.0.0.1:5000, host: \"https://registry.example.com\"}\n", "true",
			path + "its readers need the pages at the registry's address, but they are served at http.addr; remove http.addr"},
	} {
		_, _, err := FromRegistry(registry(t, tc.options+"announce: {anonymous_pushes: true, publication: "+tc.option+"}", tc.more))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
