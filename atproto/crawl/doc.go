// Package crawl requests relays to read a hold, with com.atproto.sync.requestCrawl: at
// start, and at the first event after some time without a request. It also queries
// which commits of the account the relays have.
//
// A relay learns of an account only when it receives an event of it. So when a subscriber
// without a cursor connects soon after a crawl request, the account is introduced in the
// event log.
//
// Relays are configured by the operator, but not trusted: no redirect is followed, the
// size of responses is limited, and a relay's name may only resolve to a public address,
// or to loopback if that was configured.
package crawl
