package config

import (
	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// AppView returns the address of the AppView that is asked whether it has indexed the
// account's posts, or appview.Off. The default is appview.Public if the public network
// reads the account: a hold whose hostname is public and that relays are asked to
// crawl, or an account on a public PDS. None is asked while this process writes no posts.
func (o *Options) AppView() string {
	switch {
	case o.Announce == nil || o.Hold == nil && o.Account == nil || o.Hold != nil && o.Hold.MovedTo != nil:
		return appview.Off
	case o.Announce.AppView != "":
		return string(o.Announce.AppView)
	case o.Account != nil:
		return appview.Default(pds.Hostname(o.Account.Service))
	case len(o.Hold.Relays) == 0:
		return appview.Off
	}
	return appview.Default(o.Hold.Hostname)
}
