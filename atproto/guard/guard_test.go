package guard

import (
	"net/netip"
	"testing"
)

func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700:4700::1111": true, "::ffff:1.1.1.1": true,
		"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"10.1.2.3": false, "172.31.0.1": false, "192.168.1.1": false, "100.64.0.1": false, "169.254.169.254": false,
		"224.0.0.1": false, "255.255.255.255": false, "fe80::1%eth0": false, "fd12::1": false, "fec0::1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001:0:7f00:1::": false, "2001:db8::1": false, "198.18.0.1": false,
		// embedded IPv4 addresses, of which only those in ::ffff:0:0/96 are unmapped
		"::7f00:1": false, "::10.0.0.1": false, "::1.1.1.1": false, "::ffff:0:127.0.0.1": false, "::ffff:0:1.1.1.1": false,
		"::ffff:169.254.169.254": false, "::ffff:10.0.0.1": false, "64:ff9b::10.0.0.1": false, "64:ff9b:1::10.0.0.1": false, "2002:a00:1::": false,
		"100::1": false, "100:0:0:1::1": false, "5f00::1": false, "4000::1": false, "fc00::1": false, "ff02::1": false, "2a00:1450:4001:82f::200e": true,
	} {
		if got := Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %v", text, got)
		}
	}
}
