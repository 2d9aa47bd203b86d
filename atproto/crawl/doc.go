// Package crawl asks relays to read a hold, with com.atproto.sync.requestCrawl: at
// start, and at the first event after a while without a request. It also asks relays
// which commits of the account they have.
//
// A new relay learns of an account by its next commit. So when a subscriber without a
// cursor connects soon after relays were asked, the account is introduced in the event
// log.
//
// Relays are configured by the operator, but not trusted: no redirect is followed, long
// answers are cut, and a relay's name may only resolve to a public address, or to
// loopback if that was configured.
package crawl
