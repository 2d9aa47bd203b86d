// Package journal is an ordered, durable log of events: one stream for pushes
// and deletes, one for pulls, stored as checksummed records in segment files of
// one directory. Readers have named cursors and read at their own pace.
//
// It guarantees:
//   - A push's event is durable when Complete or Append returns; concurrent
//     appends share one fsync. A pull's event is in the operating system's page
//     cache when Append returns, so it survives kill -9 but not a power cut.
//   - Readers see only durable events, and a sequence number is never used twice
//     under one journal id. A journal that is found to be behind one of its
//     cursors (power cut, restored snapshot) takes a new id and skips to a number
//     above the cursor.
//   - Segments of pushes are preallocated with up to 256 KiB of zeros, so that an
//     fsync does not have to write a new file size.
//   - Open truncates a tail that is torn at any byte. Damage to bytes that were
//     durable is reported and never skipped silently.
//   - A segment in which a write or an fsync failed is never written again;
//     its records that are not durable move to a new segment.
//   - An intent stays open until its Complete or Abandon is on disk, even if the
//     process crashes many times. Open intents do not prevent the deletion of
//     segments: they are appended again first. Their age is not limited; their
//     total size is, to 32 MiB, above which Begin returns ErrTooMany.
//   - A segment is deleted once all cursors are past it. If the events of a
//     stream exceed Config.Limit, or its files twice that, the oldest events are
//     dropped, after Config.Dropped was called with them. Events that a
//     reader has passed according to SetCursorLazily count as read.
//   - A full disk loses no acknowledged event. Segments are still deleted, and all
//     calls work again once there is space. Open needs space only if it must write.
//   - Memory is limited to the open intents and two batches of 8 MiB for each stream;
//     appends wait while the batches are full.
//
// It does not interpret payloads and order numbers (an order number never
// decreases, such as the microseconds of the last TID), does not resolve intents
// that were left open, and does not ensure that only one process opens a directory.
//
// Existing packages do not suffice: tidwall/wal has no checksums and treats a torn
// tail as corruption. Pebble's record package provides the framing, but no lookup by
// sequence number, segments or retention.
package journal
