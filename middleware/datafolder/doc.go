// Package datafolder has what concerns the data folder as a whole: its lock, its identity, and
// restoring it from a backup.
package datafolder
