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
//     cursors (power cut, restored snapshot) takes a new id and jumps ahead.
//   - Pushes are written into zeros that were written ahead, up to 256 KiB, so
//     that an fsync has no new file size to store.
//   - Opening survives a tail torn at any byte. Damage to bytes that are known
//     to have been durable is reported, never skipped in silence.
//   - A segment in which a write or an fsync failed is never written again; what
//     was not durable in it moves to a new one.
//   - Memory stays small whatever waits on disk, and disk stays within a limit.
//
// It leaves to others what payloads mean, what a mark is (a number that never
// goes back, such as the last TID's microseconds), what becomes of an intent
// that a crash left open, and that only one process opens a directory.
//
// tidwall/wal has no checksums and takes a torn tail for corruption, and
// Pebble's record package has neither numbers to find an event by, nor
// segments, nor retention around its record framing: hence this one.
package journal
