package clientaddr

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:99":             "192.0.2.1/32",
		"[::ffff:192.0.2.1]:99":    "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:99":   "2001:db8:1:2::/64",
		"[fe80::1%eth0]:99":        "fe80::/64",
		"127.0.0.1:99":             "127.0.0.1/32",
		"@":                        netip.Prefix{}.String(), // a Unix socket
		"":                         netip.Prefix{}.String(),
		"registry.example.com:443": netip.Prefix{}.String(),
	} {
		if got := Of(&http.Request{RemoteAddr: remote}).String(); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	p := Proxies{Header: "x-forwarded-for", From: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8:aaaa::/48"),
	}}
	for _, c := range []struct {
		name, peer string
		header     []string
		want       string
	}{
		{"no header", "127.0.0.1:9", nil, "127.0.0.1:9"},
		{"no proxy", "192.0.2.9:9", []string{"203.0.113.1"}, "192.0.2.9:9"},
		{"one proxy", "127.0.0.1:9", []string{"203.0.113.1"}, "203.0.113.1:0"},
		{"two proxies", "127.0.0.1:9", []string{"203.0.113.1, 10.0.0.7"}, "203.0.113.1:0"},
		{"two proxies, two lines", "127.0.0.1:9", []string{"203.0.113.1", "10.0.0.7"}, "203.0.113.1:0"},
		{"forged by the client", "127.0.0.1:9", []string{"198.51.100.1, 203.0.113.1"}, "203.0.113.1:0"},
		{"forged address of a proxy", "127.0.0.1:9", []string{"198.51.100.1", "10.0.0.1, 203.0.113.1"}, "203.0.113.1:0"},
		{"only proxies", "127.0.0.1:9", []string{"10.0.0.8,10.0.0.7"}, "10.0.0.8:0"},
		{"invalid address", "127.0.0.1:9", []string{"unknown"}, "127.0.0.1:9"},
		{"invalid address behind a proxy", "127.0.0.1:9", []string{"203.0.113.1, _hidden, 10.0.0.7"}, "10.0.0.7:0"},
		{"with a port", "127.0.0.1:9", []string{"203.0.113.1:4711"}, "203.0.113.1:0"},
		{"IPv6", "127.0.0.1:9", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"IPv6 with a port", "[2001:db8:aaaa::1]:9", []string{"[2001:db8::7]:4711"}, "[2001:db8::7]:0"},
		{"a Unix socket", "@", []string{"203.0.113.1"}, "203.0.113.1:0"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.header}}
		if got := p.Resolve(r).RemoteAddr; got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if r.RemoteAddr != c.peer {
			t.Errorf("%s: Resolve changed the RemoteAddr of its argument to %s", c.name, r.RemoteAddr)
		}
		if got := (Proxies{}).Resolve(r).RemoteAddr; got != c.peer {
			t.Errorf("%s: without a configured header: %s", c.name, got)
		}
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	s := NewSlots(4, 2)
	a, b, c := netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("2001:db8::/64"), netip.Prefix{}
	for i, step := range []struct {
		client netip.Prefix
		want   bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {c, true}, {b, false}} { // the fourth is the last
		if got := s.Acquire(step.client); got != step.want {
			t.Errorf("step %d: Acquire(%s) = %v", i, step.client, got)
		}
	}
	s.Release(a)
	if !s.Acquire(b) || s.Acquire(a) || s.InUse() != 4 {
		t.Errorf("after a release: %+v", s.byClient)
	}
	for _, client := range []netip.Prefix{a, b, b, c} {
		s.Release(client)
	}
	if s.InUse() != 0 || len(s.byClient) != 0 {
		t.Errorf("after all releases: %d in use, %+v", s.InUse(), s.byClient)
	}
}
