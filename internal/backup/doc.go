// Package backup writes and restores copies of a folder that are complete or not there
// at all.
//
// A backup is a folder with the files and a list of them, backup.jsonl, with the size
// and the SHA-256 of each. Write builds it as DIR.unfinished, and exchanges that with the
// backup that it replaces, or renames it, in one step. A crash leaves the previous backup,
// or none, and a folder that the next Write removes.
//
// Files that have not changed since the previous backup are linked from it, others are
// linked from the source or, if that is on another file system, copied. So the source
// must contain no file that is changed in place later, and only files whose contents are
// durable: its owner links the files that are never changed, and copies the others.
package backup
