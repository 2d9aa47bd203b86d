// Package firehose sends an event log to subscribers over WebSockets, as
// com.atproto.sync.subscribeRepos says.
//
// A subscriber is a cursor: it pulls from the log what comes after it, and
// waits on a channel that the log closes at the next event. Nothing is queued
// for it, so hundreds cost little and a slow one nothing; those at the end of
// the log share the frames that one of them has read. Replay from any cursor
// that the log still reaches joins the live events without gap, repetition or
// wait.
//
// A subscriber is dropped when its socket takes nothing for long, when it is
// far behind and crawling, or when the log no longer has what it needs next:
// then it is told, and may come back with its cursor.
//
// What is in a frame, in which order and how durable, and how long it is kept
// belongs to the log (atproto/repo).
package firehose
