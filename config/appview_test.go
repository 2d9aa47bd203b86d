package config

import "testing"

func TestAppView(t *testing.T) {
	t.Parallel()
	const public = "data: /d\nhold: {hostname: registry.example.com, relays: [\"https://bsky.network\"]}\n"
	for options, want := range map[string]string{
		public + "announce: {}":                                          "https://public.api.bsky.app",
		public + "announce: {appview: \"http://localhost:2584\"}":        "http://localhost:2584",
		public + "announce: {appview: off}":                              "off",
		public + "announce: {appview: false}":                            "off",
		public + "announce: {appview: \"off\"}":                          "off",
		public:                                                           "off",
		"data: /d\nhold: {hostname: registry.example.com}\nannounce: {}": "off",
		"data: /d": "off",
		"data: /d\naccount: {service: \"https://bsky.social\", identifier: a.example.com, password_file: /p}\nannounce: {}":             "https://public.api.bsky.app",
		"data: /d\naccount: {service: \"http://localhost:2583\", identifier: a.example.com, password_file: /p}\nannounce: {}":           "off",
		"data: /d\naccount: {service: \"https://bsky.social\", identifier: a.example.com, password_file: /p}\nannounce: {appview: off}": "off",
		"data: /d\naccount: {service: \"https://bsky.social\", identifier: a.example.com, password_file: /p}":                           "off",
		"data: /d\nannounce: {}\n" + moved("a.example.com", "https://b.example.com"):                                                    "off",
		"data: /d\nhold: {hostname: \"localhost:5000\"}\nannounce: {}":                                                                  "off",
		"data: /d\nhold: {hostname: localhost}\nannounce: {appview: \"https://appview.example.com\"}":                                   "https://appview.example.com",
	} {
		if got := mustRead(t, options, "auth: {htpasswd: {realm: r, path: /p}}\n").AppView(); got != want {
			t.Errorf("%s: got %s, want %s", options, got, want)
		}
	}
}
