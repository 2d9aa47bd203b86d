// Package crawl asks relays to read a hold: com.atproto.sync.requestCrawl at
// start, and again when something new happens after a while.
//
// A relay that has never heard of an account knows nothing of it until its
// next commit. So when a subscriber without a cursor joins soon after relays
// were asked, the account is introduced in the event log.
//
// Relays are the operator's choice, and still not trusted: no redirect is
// followed, an answer is cut short, and their name may only lead to a public
// address, or to loopback if that is what was configured.
package crawl
