// Package firehose sends an event log to subscribers over WebSockets, as specified
// for com.atproto.sync.subscribeRepos.
//
// Each subscriber has a cursor. It reads the events after its cursor from the log,
// and waits on a channel that the log closes at the next event. Nothing is queued for
// a subscriber, so hundreds of them, and slow ones, cost little. Subscribers near the
// end of the log share frames that one of them has read (feed.go).
//
// A subscriber is dropped when its socket accepts no data for long, when it is far
// behind and does not catch up, or when the log no longer has the event that it needs
// next. It gets an error frame with the reason and can reconnect with its cursor.
//
// The content of frames, their order, durability and retention belong to the log
// (atproto/repo).
package firehose
