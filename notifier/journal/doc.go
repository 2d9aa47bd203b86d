// Package journal keeps what happened at the registry as ordered bytes that
// survive: one stream of pushes, one of pulls, in segments of checked records
// below one directory, read at their own pace by readers with named cursors.
//
// It promises:
//   - A push's event is durable when Complete or Append returns; pushes that
//     wait at the same moment share one fsync. A pull's event is with the
//     operating system when Append returns, so it survives kill -9 though not
//     a power cut.
//   - Readers see only what is durable, and no event number is ever given to
//     two events under one journal id. A journal that opens behind one of its
//     cursors (power cut, restored snapshot) takes a new id and jumps ahead, as
//     it does when RenewID tells it to.
//   - Pushes are written into zeros that were written ahead, up to 256 KiB, so
//     that an fsync has no new file size to store.
//   - Opening survives a tail torn at any byte. Damage to bytes that are known
//     to have been durable is reported, never skipped in silence.
//   - A segment in which a write or an fsync failed is never written again; what
//     was not durable in it moves to a new one.
//   - An intent is open until its Complete or Abandon is on disk, however often
//     the process dies. Open intents hold nothing back: before their segment is
//     deleted they are appended again, and those records are durable first. There
//     is no bound on their age; together they have at most 32 MiB, beyond which
//     Begin returns ErrTooMany.
//   - A segment is deleted once every cursor has passed it. A stream whose events
//     have more bytes than the limit, or whose files have twice as many, gives up
//     its oldest events, after Config.Dropped could read them. What a reader has
//     passed by its own account (SetCursorLazily) is never given up.
//   - A full disk loses nothing that was acknowledged, and leaves nothing behind
//     that outlasts it: segments are deleted on a full disk, too, and all calls
//     work again once there is space. Open needs space only if it has to write.
//   - Memory is bounded whatever waits on disk: by two batches of 8 MiB in each
//     stream, for whose room appenders wait, and by the open intents.
//
// It leaves to others what payloads mean, what a mark is (a number that never
// goes back, such as the last TID's microseconds), what becomes of an intent
// that a crash left open or that was released, and that only one process opens a
// directory.
//
// Files are deleted oldest first, each durably before the next: should an older
// segment come back without a newer one, an intent would seem open whose
// completion is gone.
//
// tidwall/wal has no checksums and takes a torn tail for corruption, and
// Pebble's record package has neither numbers to find an event by, nor
// segments, nor retention around its record framing: hence this one.
package journal
