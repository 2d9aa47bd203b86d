package config

import (
	"fmt"

	"github.com/tidings-dev/tidings/atproto/appview"
)

// AddressOrOff is the address of a service, or off. An unquoted off is false in YAML 1.1.
type AddressOrOff string

func addressOrOff(raw any) (AddressOrOff, error) {
	if raw == false {
		return appview.Off, nil
	}
	s, ok := raw.(string)
	if !ok {
		return "", fmt.Errorf("is %s, but must be an address or off", kind(raw))
	}
	return AddressOrOff(s), nil
}

// AppView returns the address of the AppView that is asked whether it has indexed the
// account's posts, or appview.Off. The default is appview.Public if the public network
// reads the account: its hostname is public, and relays are asked to crawl it. None is
// asked while this process writes no posts.
func (o *Options) AppView() string {
	switch {
	case o.Announce == nil || o.Hold == nil || o.Hold.MovedTo != nil:
		return appview.Off
	case o.Announce.AppView != "":
		return string(o.Announce.AppView)
	case len(o.Hold.Relays) == 0:
		return appview.Off
	}
	return appview.Default(o.Hold.Hostname)
}
