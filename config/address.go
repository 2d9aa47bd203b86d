package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// checkAddr accepts the addresses of net.Listen: host:port, or :port.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf(`%q is an invalid listen address; use host:port, like "127.0.0.1:5080" or ":5080"`, addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has an invalid port; use a number up to 65535", addr)
	}
	return nil
}

// loopback reports whether a listener on addr is reachable from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
